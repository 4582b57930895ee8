"""Settings laid over settings, and the parameters of `compare` and `tune`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from vmnet_pipeline.params import BEST_PROPOSED, CompareParams, SearchDimension, TrainParams, TuneParams

CONF = Path(__file__).parents[2] / "conf" / "base" / "parameters"


def test_what_is_not_named_stays() -> None:
    params = TrainParams(seed=4, epochs=9, loss={"margin": 0.2, "top_k": 7}).override({"loss": {"margin": 0.4}})
    assert (params.seed, params.epochs, params.loss.margin, params.loss.top_k) == (4, 9, 0.4, 7)
    assert TrainParams().override({}) == TrainParams()


def test_a_protocol_brings_its_proposals_beneath_what_was_given() -> None:
    params = TrainParams(epochs=9).override({"protocol": "best"})
    assert (params.epochs, params.learning_rate) == (9, BEST_PROPOSED["learning_rate"])
    assert params.model.music_tower == "canonical"
    assert params == TrainParams(protocol="best", epochs=9)


def test_a_protocol_takes_its_proposals_along_when_it_goes() -> None:
    best = TrainParams(protocol="best", epochs=9, model={"dropout": 0.3})
    assert best.override({"protocol": "default"}) == TrainParams(epochs=9, model={"dropout": 0.3})
    reference = TrainParams(protocol="reference")
    assert reference.override({"protocol": "default", "shuffle": True}) == TrainParams(shuffle=True)
    assert reference.override({"epochs": 3}) == TrainParams(protocol="reference", epochs=3)


@pytest.mark.parametrize("settings", [{"epochz": 3}, {"loss": {"marge": 1}}, {"protocol": "reference", "keep": "best"}])
def test_what_cannot_be_laid_over_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainParams().override(settings)


def test_the_settings_in_conf_can_be_used() -> None:
    compare = CompareParams(**yaml.safe_load((CONF / "compare.yml").read_text())["compare"])
    assert list(compare.variants) == ["vmnet", "best", "contrastive"]
    assert compare.seeds == (0, 1, 2)
    base = TrainParams(seed=17)
    assert base.override(compare.variants["contrastive"]).loss.name == "contrastive"
    tune = TuneParams(**yaml.safe_load((CONF / "tune.yml").read_text())["tune"])
    assert tune.space["learning_rate"].log
    assert tune.space["loss.top_k"].choices == (None, 64, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variants": {}}, "at least 1"),
        ({"variants": {"../up": {}}}, "pattern"),
        ({"variants": {"cca": {}}}, "name of a baseline"),
        ({"variants": {"a": {}}, "seeds": (1, 1)}, "must differ"),
        ({"variants": {"a": {}}, "against": "b"}, "neither a variant"),
        ({"variants": {"a": {}}, "baselines": ("knn",)}, "neighbours"),
    ],
)
def test_comparisons_that_cannot_be_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CompareParams(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either low and high, or choices"),
        ({"low": 1}, "either low and high, or choices"),
        ({"low": 1, "high": 2, "choices": (1, 2)}, "either low and high, or choices"),
        ({"low": 1, "choices": (1, 2)}, "choices exclude low, high"),
        ({"choices": ()}, "choices exclude low, high"),
        ({"low": 2, "high": 1}, "must be below"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
        ({"low": 0, "high": 1, "step": 1}, "step"),
    ],
)
def test_dimensions_that_cannot_be_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchDimension(**given)  # type: ignore[arg-type]


def test_whole_numbers_stay_whole() -> None:
    dimension = SearchDimension(low=1, high=4)
    assert isinstance(dimension.low, int)
    assert isinstance(SearchDimension(choices=(True, 2, 0.5, "x", None)).choices[0], bool)  # type: ignore[index]
