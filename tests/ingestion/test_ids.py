import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmnet_pipeline.ingestion import ids as naming
from vmnet_pipeline.ingestion.ids import (
    is_id,
    is_safe_name,
    list_possible_ids,
    make_safe_name,
    make_unique_ids,
    name_collection,
)


@pytest.mark.parametrize("text", ["007", "a", "Clip_1.take-2", "x" * 120])
def test_a_safe_name_stays_as_it_is(text):
    assert make_safe_name(text) == text


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../etc/passwd", "a/b", "a b", "_index", ".tmp-1", "ü", "日本", "a\nb", "x" * 300, "\udcff"]
)
def test_an_unsafe_name_gets_a_safe_id_of_its_own(text):
    made = make_safe_name(text)
    assert is_safe_name(made)
    assert made != text
    assert make_safe_name(text + "?") != made


def test_names_that_differ_only_in_what_is_replaced_or_in_case_keep_apart():
    ids = make_unique_ids(["a b", "a_b", "A_b", "Ä"])
    assert len({item_id.casefold() for item_id in ids}) == 4


@given(st.lists(st.text(max_size=30), unique=True, max_size=20))
def test_ids_are_safe_unique_and_independent_of_order(names):
    ids = make_unique_ids(names)
    assert all(is_id(item_id) for item_id in ids)
    assert len({item_id.casefold() for item_id in ids}) == len(names)
    assert make_unique_ids(names[::-1]) == ids[::-1]


def test_two_folders_of_one_name_are_two_collections(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parent in ("a", "b", "data/01_raw"):
        (tmp_path / parent / "clips").mkdir(parents=True)
    names = [name_collection(str(tmp_path / parent / "clips")) for parent in ("a", "b", "data/01_raw")]
    assert len(set(names)) == 3
    assert names[2] == "clips"
    assert name_collection("data/01_raw/demo") == "demo"
    assert name_collection(str(tmp_path / "a/demo")) != "demo"
    assert name_collection("a/clips") == names[0] == name_collection("a/clips/")


def test_a_media_csv_is_a_collection_of_its_own_and_a_given_name_counts(tmp_path):
    assert name_collection(str(tmp_path / "x/media.csv")) != name_collection(str(tmp_path / "x"))
    assert name_collection("anything", "mine") == "mine"
    assert is_safe_name(name_collection("anything", "../mine"))
    assert Path(name_collection("anything", "../mine")).name == name_collection("anything", "../mine")


def test_collections_of_two_buckets_differ():
    names = {name_collection(url) for url in ("s3://one/clips", "s3://two/clips", "s3://two/clips/media.csv")}
    assert len(names) == 3
    assert all(name.startswith("clips-") for name in names)
    assert name_collection("s3://one/clips/") == name_collection("s3://one/clips")


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Déjà vu") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "../a", "a/b", "a\\b", "a\nb", "a\x7f", " a", "a\u2028b", "x" * 201]
)
def test_names_that_cannot_be_ids(name):
    assert not is_id(name)
    (made,) = make_unique_ids([name])
    assert is_id(made)
    assert made in list_possible_ids(name)


def test_ids_that_were_made_before_stay():
    names = ["007", "Clip_1.take-2", "sub/clip", "a/b c/ü", "x" * 120, "trailing."]
    assert make_unique_ids(names) == [
        "007", "Clip_1.take-2", "sub-clip-dd4b3a0d", "a-b_c-u-484ffef6", "x" * 120, "trailing.",
    ]  # fmt: skip
    assert make_unique_ids(["a", "A"]) == [f"a-{naming.short_digest('a')}", f"A-{naming.short_digest('A')}"]


def test_ids_of_equal_digests_grow_until_they_differ(monkeypatch):
    def digest(text, length=8):
        return ("0" * 12 + naming.hashlib.sha256(text.encode()).hexdigest())[:length]

    monkeypatch.setattr(naming, "short_digest", digest)
    names = ["s/a", "s-a/", "plain", "t/b", "B", "b"]
    ids = make_unique_ids(names)
    assert len({item_id.casefold() for item_id in ids}) == len(names)
    assert ids[2] == "plain"
    assert ids[3] == "t-b-00000000"
    assert len(ids[0]) > len("s-a-00000000")
    assert make_unique_ids(names[::-1]) == ids[::-1]
    assert all(item_id in list_possible_ids(name) for name, item_id in zip(names, ids, strict=True))


def test_two_real_names_of_one_short_digest():
    seen: dict[str, str] = {}
    for number in range(2**32):  # a pair turns up after some 80,000 names
        name = f"x/{chr(0x4E00 + number % 20000)}{chr(0x4E00 + number // 20000)}"
        other = seen.setdefault(naming.short_digest(name), name)
        if other != name:
            break
    assert naming.make_safe_name(name) == naming.make_safe_name(other)
    first, second, third = make_unique_ids([name, other, "x/歌"])
    assert first != second
    assert len(first) == len(second) == len(third) + 8
    assert make_unique_ids(["x/歌", other, name]) == [third, second, first]


def test_a_name_that_looks_like_a_made_id():
    (made,) = make_unique_ids(["sub/x"])
    ids = make_unique_ids(["sub/x", made])
    assert len(set(ids)) == 2
    assert make_unique_ids([made, "sub/x"]) == ids[::-1]


def test_the_name_of_a_collection_is_one_in_either_spelling():
    assert name_collection("media", COMPOSED) == name_collection("media", DECOMPOSED)
