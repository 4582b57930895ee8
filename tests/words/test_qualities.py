"""Scores of items for wishes: order, exclusions, what is not known, and the file next to the index."""

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.words.qualities import Qualities, read_qualities
from vmnet_pipeline.words.understanding import Wish, Wishes


def rank(library, listener, text):
    scores = library.score(listener.understand(text))
    return [library.ids[place] for place in np.argsort(-scores, kind="stable")]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("calm piano, no drums", "sonata"),
        ("fast piano", "etude"),
        ("piano with a female singer", "ballad"),
        ("club music", "rave"),
        ("distorted electric guitar", "riff"),
        ("sacred chant", "mass"),
        ("loud rock", "riff"),
    ],
)
def test_the_track_that_meets_the_words_comes_first(library, listener, text, first):
    assert rank(library, listener, text)[0] == first


def test_exclusions_put_last_what_has_it(library, listener):
    assert {"rave", "riff", "ballad"} == set(rank(library, listener, "no drums")[-3:])
    assert (
        rank(library, listener, "piano -drums")[:2] == ["etude", "sonata"]
        or "ballad" not in rank(library, listener, "piano -drums")[:2]
    )
    assert set(rank(library, listener, "without vocals")[-3:]) == {"ballad", "riff", "mass"}


def wish(**weights):
    return Wishes((Wish("text", False, {f"t:{name}": weight for name, weight in weights.items()}),))


def test_unknown_numbers_are_middling_and_unknown_items_last():
    raw = np.array([[1.0, 0.0], [np.nan, 5.0], [np.inf, -5.0], [np.nan, np.nan], [3.0, 0.0]])
    library = Qualities.measure("abcde", ("t:x", "t:y"), raw)
    assert np.isfinite(library.values).all() and library.known.tolist() == [True, True, True, False, True]
    scores = library.score(wish(x=1.0))
    assert scores[3] == -np.inf and scores[4] > scores[1] == scores[2] > scores[0]


def test_a_column_that_is_the_same_for_all_items_says_nothing():
    library = Qualities.measure("ab", ("t:x",), np.full((2, 1), 0.3))
    assert library.score(wish(x=1.0)).tolist() == [0.0, 0.0]
    assert Qualities.measure((), ("t:x",), np.empty((0, 1))).score(wish(x=1.0)).shape == (0,)


def test_an_outlier_does_not_outweigh_everything():
    raw = np.zeros((400, 1))
    raw[0] = 1e9
    library = Qualities.measure([str(i) for i in range(400)], ("t:x",), raw)
    assert library.score(wish(x=1.0)).max() < np.sqrt(400) and np.max(library.values) == 4.0


def test_a_library_about_which_nothing_is_known_says_how_to_get_tags(tmp_path):
    with pytest.raises(SearchIndexError, match=r"there is nothing in .* that words can ask for; .*extract_musicnn"):
        read_qualities(tmp_path, "music")
    pd.DataFrame({"id": ["a"]}).to_parquet(tmp_path / "music_words.parquet")
    with pytest.raises(SearchIndexError, match=r"no item has tags .*extract_musicnn_tags"):
        read_qualities(tmp_path, "music")
    pd.DataFrame({"id": ["a"], "t:x": [np.nan]}).to_parquet(tmp_path / "video_words.parquet")
    with pytest.raises(SearchIndexError, match=r"no item has tags .*extract_efficientnet"):
        read_qualities(tmp_path, "video")
    (tmp_path / "music_words.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(SearchIndexError, match=r"music_words.parquet is damaged .*kedro run --pipeline index"):
        read_qualities(tmp_path, "music")
    pd.DataFrame({"id": ["a"], "t:x": ["much"]}).to_parquet(tmp_path / "music_words.parquet")
    with pytest.raises(SearchIndexError, match=r"is damaged"):
        read_qualities(tmp_path, "music")
