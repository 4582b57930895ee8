from __future__ import annotations

import pandas as pd
import pytest

from vmnet_pipeline.search.filters import select_items
from vmnet_pipeline.soundtrack.licences import read_terms, warn_of_terms

# Text, name, and: commercial use, changes, attribution, share-alike.
KNOWN = [
    ("https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0", "yyyn"),
    ("http://creativecommons.org/licenses/by-nc-sa/3.0/us/", "CC-BY-NC-SA-3.0", "nyyy"),
    ("http://www.creativecommons.org/licenses/by-nd/2.5", "CC-BY-ND-2.5", "ynyn"),
    ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", "yynn"),
    ("https://creativecommons.org/publicdomain/mark/1.0/", "Public domain", "yynn"),
    ("CC-BY-SA-4.0", "CC-BY-SA-4.0", "yyyy"),
    ("CC BY-NC-ND 4.0", "CC-BY-NC-ND-4.0", "nnyn"),
    ("cc_by", "CC-BY", "yyyn"),
    ("CC-BY-NC-ND", "CC-BY-NC-ND", "nnyn"),
    ("by-nc-sa", "CC-BY-NC-SA", "nyyy"),
    ("Attribution-NonCommercial-ShareAlike 3.0 International", "CC-BY-NC-SA-3.0", "nyyy"),
    ("Attribution-Noncommercial-Share Alike 3.0 United States", "CC-BY-NC-SA-3.0", "nyyy"),
    ("Creative Commons Attribution-NoDerivatives 4.0", "CC-BY-ND-4.0", "ynyn"),
    ("Creative Commons Attribution (reuse allowed)", "CC-BY", "yyyn"),
    ("Licensed under Creative Commons: By Attribution 4.0 License", "CC-BY-4.0", "yyyn"),
    ("CC0", "CC0-1.0", "yynn"),
    ("CC0 1.0 Universal", "CC0-1.0", "yynn"),
    ("Public Domain", "Public domain", "yynn"),
    ("Free Art License", "LAL-1.3", "yyyy"),
    ("MIT", "MIT", "yyyn"),
    ("All Rights Reserved.", "All rights reserved", "nn?n"),
]
UNKNOWN = ["ask my label", "royalty-free", "free", "(c) 2020 Someone", "Sampling Plus 1.0", "commercial", "by request",
           "standby", "attribution", "not public domain", "https://creativecommons.org/licenses/sampling+/1.0/",
           "submitted", "nc", "x" * 100_000]  # fmt: skip
LETTERS = {"y": "yes", "n": "no", "?": "unknown"}


@pytest.mark.parametrize(("text", "name", "answers"), KNOWN)
def test_texts_that_say_what_is_allowed(text, name, answers):
    terms = read_terms(text)
    assert terms.name == name
    found = (terms.commercial, terms.adaptation, terms.attribution, terms.share_alike)
    assert found == tuple(LETTERS[letter] for letter in answers)
    assert read_terms(text.upper()).commercial == terms.commercial


@pytest.mark.parametrize("text", UNKNOWN)
def test_other_texts_are_unknown(text):
    terms = read_terms(text)
    found = (terms.commercial, terms.adaptation, terms.attribution, terms.share_alike)
    assert found == ("unknown",) * 4
    assert terms.name == text[:500]


def test_names_and_addresses_of_known_licences_are_understood_again():
    for text, name, _ in KNOWN:
        terms = read_terms(text)
        assert read_terms(name) == read_terms(read_terms(name).name)
        if "creativecommons" in terms.url:
            assert read_terms(terms.url).name == name


def test_warnings_say_what_matters_for_a_video():
    assert warn_of_terms("CC0") == warn_of_terms("CC BY 4.0") == []
    assert [len(warn_of_terms(text)) for text in ("", "CC BY-NC-ND", "CC BY-SA", "ask my label")] == [1, 2, 1, 1]


def make_items():
    texts = ["CC BY 4.0", "CC BY-NC-SA 3.0", "cc by 4.0", "", "ask my label", "CC0", None]
    return pd.DataFrame({"id": [f"t{k}" for k in range(len(texts))], "licence": texts})


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        (["commercial=yes"], [0, 2, 5]),
        (["commercial=no"], [1]),
        (["commercial=unknown"], [3, 4, 6]),
        (["commercial!=no"], [0, 2, 3, 4, 5, 6]),
        (["share_alike=no", "attribution=yes"], [0, 2]),
        (["Adaptation=Yes"], None),
        (["adaptation=yes", "licence=CC0"], [5]),
        (["licence=cc by 4.0"], [0, 2]),
    ],
)
def test_a_filter_knows_the_classes_of_licences(filters, rows):
    if rows is None:
        with pytest.raises(Exception, match="items have no 'Adaptation'"):
            select_items(make_items(), filters)
        return
    assert list(select_items(make_items(), filters).nonzero()[0]) == rows


def test_a_column_of_the_users_own_comes_first():
    items = make_items().assign(commercial="perhaps")
    assert select_items(items, ["commercial=perhaps"]).all()
