"""Texts to weights: by the words of concepts, by likeness of meaning, and what is not understood."""

import numpy as np
import pytest

from vmnet_pipeline.errors import ParameterError


def top(listener, text):
    return [
        ("-" if wish.is_excluded else "+") + max(wish.weights, key=lambda column: abs(wish.weights[column]))
        for wish in listener.understand(text).wishes
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("piano", ["+MTT_musicnn:piano"]),
        ("Pianos", ["+MTT_musicnn:piano"]),
        ("harpsichords, no drums", ["+MTT_musicnn:harpsichord", "-MTT_musicnn:drums"]),
        ("a sitar from India", ["+MTT_musicnn:sitar"]),
        ("church hymn", ["+MTT_musicnn:choir"]),
        ("headbanging guitars", ["+MTT_musicnn:metal"]),
        ("flutes -violin", ["+MTT_musicnn:flute", "-MTT_musicnn:violin"]),
    ],
)
def test_words_ask_for_tags(listener, text, expected):
    assert top(listener, text) == expected


def test_weights_of_a_wish_sum_up_to_one_at_most(listener):
    for text in ("piano", "calm", "slow sad strings for a rainy evening", "a very unusual description of a mood"):
        for wish in listener.understand(text).wishes:
            assert 0 < sum(map(abs, wish.weights.values())) <= 1 + 1e-6


def test_instrumental_asks_for_no_voice_and_its_negation_for_one(listener):
    (wish,) = listener.understand("instrumental").wishes
    assert wish.weights["MTT_musicnn:no vocals"] > 0 > wish.weights["MTT_musicnn:vocals"]
    (wish,) = listener.understand("without vocals").wishes
    assert wish.is_excluded and wish.weights["MTT_musicnn:vocals"] > 0 > wish.weights["MTT_musicnn:no vocals"]


def test_what_is_guessed_or_not_understood_is_said_and_the_rest_counts(listener):
    wishes = listener.understand("piano, a database schema, no workout")
    assert [wish.text for wish in wishes.wishes] == ["piano", "workout"]
    assert (
        wishes.remark
        == "Taken: 'workout' as energetic / dance / vocals. Not understood, and left out: 'a database schema'."
    )
    assert listener.understand("piano, no drums").remark == ""


RUSSIAN, JAPANESE = "\u0431\u044b\u0441\u0442\u0440\u0430\u044f", "\u9759\u304b\u306a\u97f3\u697d"


@pytest.mark.parametrize("text", [RUSSIAN, JAPANESE, "database schema", "123456789"])
def test_a_text_of_which_nothing_is_understood_is_refused(listener, text):
    with pytest.raises(
        ParameterError, match=f"not understood: nothing known of the items is like '{text}'; use English"
    ):
        listener.understand(text)


def test_the_longest_text_is_quick_and_finite(listener):
    wishes = listener.understand(("word " * 200)[:990] + " piano")
    assert all(np.isfinite(list(wish.weights.values())).all() for wish in wishes.wishes)
