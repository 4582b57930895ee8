from __future__ import annotations

import pytest
from pydantic import ValidationError

from vmnet_pipeline.params import LossParams, TrainParams


def test_reference_protocol_is_the_published_setting() -> None:
    params = TrainParams(protocol="reference")
    assert (params.epochs, params.batch_size, params.learning_rate) == (202, 1024, 3e-4)
    assert (params.lr_decay, params.lr_decay_steps, params.adam_epsilon) == (0.96, 1000, 1e-8)
    assert (params.shuffle, params.keep, params.standardise, params.positives_by) == (False, "last", False, "position")
    assert (params.loss.margin, params.loss.top_k, params.loss.structure_triples) == (0.5, 1024, "adjacent")
    assert params.model.dropout == 0.1


def test_published_numbers_may_be_overridden() -> None:
    params = TrainParams(protocol="reference", epochs=3, loss={"margin": 0.1, "top_k": 100})
    assert (params.epochs, params.batch_size) == (3, 1024)
    assert (params.loss.margin, params.loss.top_k, params.loss.structure_triples) == (0.1, 100, "adjacent")
    assert TrainParams(protocol="reference", loss=LossParams(margin=0.1)).loss.top_k == 1024


@pytest.mark.parametrize(
    "given",
    [
        {"shuffle": True},
        {"keep": "best"},
        {"standardise": True},
        {"loss": {"structure_triples": "all"}},
        {"loss": {"hinge": "sum"}},
    ],
)
def test_a_contradiction_of_the_protocol_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="use protocol 'default'"):
        TrainParams(protocol="reference", **given)  # type: ignore[arg-type]


def test_best_protocol_only_proposes() -> None:
    params = TrainParams(protocol="best")
    assert (params.model.music_tower, params.model.video_tower, params.loss.name) == (
        "canonical",
        "canonical",
        "contrastive",
    )
    assert (params.lr_schedule, params.average_decay, params.shuffle, params.keep) == ("cosine", 0.99, True, "best")
    params = TrainParams(protocol="best", epochs=3, loss={"name": "vmnet"}, model={"embedding_dim": 20})
    assert (params.epochs, params.loss.name, params.model.embedding_dim) == (3, "vmnet", 20)
    assert params.model.music_tower == "canonical"


@pytest.mark.parametrize("given", [{"music_tower": "sequence"}, {"video_tower": "sequence"}, {"music_tower": "auto"}])
def test_a_tower_that_is_given_is_one_network_with_it(given: dict[str, str]) -> None:
    params = TrainParams(protocol="best", model=given)
    (tower,) = given.values()
    assert getattr(params.model, next(iter(given))) == tower
    assert {params.model.music_tower, params.model.video_tower} == {tower, "auto"}  # the other side follows
    assert (params.members, list(params.kinds), params.model.embedding_dim) == ({}, [""], 512)


def test_what_is_given_counts_for_every_proposed_member() -> None:
    assert [part.epochs for part in TrainParams(protocol="best").kinds.values()] == [30, 30, 40]
    given = TrainParams(protocol="best", epochs=3, batch_size=9)
    assert [(part.epochs, part.batch_size) for part in given.kinds.values()] == [(3, 9)] * 3
    assert [part.epochs for part in TrainParams(protocol="best").override({"epochs": 3}).kinds.values()] == [3, 3, 3]
    settled = {name: {**settings, "whiten": {"music": 0.5}} for name, settings in given.members.items()}  # in training
    assert given.model_copy(update={"members": settled}).kinds["vmnet"].epochs == 3
    own = TrainParams(protocol="best", epochs=3, members={"vmnet": {"epochs": 7}})
    assert own.kinds["vmnet"].epochs == 7


@pytest.mark.parametrize("protocol", ["default", "reference", "best"])
def test_resolved_parameters_make_the_same_parameters(protocol: str) -> None:
    params = TrainParams(protocol=protocol)  # type: ignore[arg-type]
    assert TrainParams(**params.model_dump(mode="json")) == params


@pytest.mark.parametrize("given", [{"epoch": 3}, {"epochs": -1}, {"batch_size": 1}, {"loss": {"marge": 1}}])
def test_unknown_names_and_values_out_of_bounds_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainParams(**given)  # type: ignore[arg-type]


def test_the_reference_protocol_has_both() -> None:
    params = TrainParams(protocol="reference")
    assert (params.epsilon_before_correction, params.population_variance) == (True, True)
    assert not TrainParams(protocol="reference", population_variance=False).population_variance
    assert not TrainParams().epsilon_before_correction
