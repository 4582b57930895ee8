"""Queries unlike everything that a network was trained on."""

import base64

import numpy as np
import pytest
from pydantic import ValidationError

from vmnet_pipeline.evaluation.domain import MAX_SAMPLE, KnownItems, know_items


def draw(n, seed, spread=0.6, centre=0, width=48):
    """Unit rows around some directions; another `centre` gives others."""
    centres = np.random.default_rng(centre).standard_normal((5, width))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 5, n)] + spread * rng.standard_normal((n, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def count_below(known, rows):
    return np.mean([known.find_nearest(row) < known.threshold for row in rows])


@pytest.mark.parametrize("held_out", [draw(400, 2), None])
def test_the_own_kind_is_known_and_another_is_not(held_out):
    known = know_items(draw(600, 1), range(600), held_out)
    assert count_below(known, draw(400, 3)) < 0.05
    assert count_below(known, draw(400, 4, centre=9)) > 0.9


def test_clips_of_one_song_do_not_make_the_threshold_too_high():
    rows = np.repeat(draw(60, 1), 4, axis=0)
    alone = know_items(rows, range(240))
    together = know_items(rows, np.repeat(np.arange(60), 4))
    assert alone.threshold > 0.99
    assert count_below(together, draw(200, 3)) < 0.1


def test_the_sample_is_small_and_near_what_it_stands_for():
    train = draw(2000, 1, width=2048)
    known = know_items(train, range(2000), draw(50, 2, width=2048))
    assert len(known.vectors) < 300_000
    few = draw(30, 1)
    small = know_items(few, range(30), draw(50, 2))
    exact = (draw(20, 3) @ few.T).max(axis=1)
    found = [small.find_nearest(row) for row in draw(20, 3)]
    np.testing.assert_allclose(found, exact, atol=0.01)
    assert len(base64.b64decode(know_items(draw(900, 1), range(900)).vectors)) == MAX_SAMPLE * 48


def test_few_items_say_nothing_and_other_widths_are_unknown():
    assert know_items(draw(19, 1), range(19)) is None
    assert know_items(draw(100, 1), ["song"] * 100) is None
    known = know_items(draw(19, 1), range(19), draw(20, 2))
    assert known.find_nearest(np.ones(7, np.float32)) == -1.0


@pytest.mark.parametrize(
    "broken", [{"vectors": "???"}, {"vectors": ""}, {"vectors": "AAAA"}, {"width": 0}, {"threshold": float("nan")}]
)
def test_damaged_samples_are_refused(broken):
    good = know_items(draw(30, 1), range(30)).model_dump()
    assert KnownItems.model_validate(good).threshold == good["threshold"]
    with pytest.raises(ValidationError):
        KnownItems.model_validate(good | broken)
