from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tiny_pairs import Killed, Logs, draw_pairs, narrow_params
from vmnet_pipeline.errors import ParameterError, TrainingError
from vmnet_pipeline.models.checkpoints import (
    Checkpoint,
    StartPoint,
    build_from_checkpoint,
    load_checkpoint,
    save_checkpoint,
    split_checkpoint,
)
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.reduced_cca import list_ranks
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.calibration import calibrate_result
from vmnet_pipeline.training.ensembles import list_members, train_ensemble
from vmnet_pipeline.training.joint_weights import choose_few_weights, choose_weights
from vmnet_pipeline.training.trainer import HeldOut
from vmnet_pipeline.types import FeaturePart, Sequences

pytestmark = pytest.mark.long

TRAIN, VAL = draw_pairs(40, 1), draw_pairs(12, 2)
PARAMS = narrow_params(n_members=3)


def open_by_number(logs):
    return lambda number, name, params: logs(number, params)


def train(folder, params=PARAMS, logs=None):
    ensemble = train_ensemble(TRAIN, VAL, params, state_dir=folder, open_log=open_by_number(logs or Logs()))
    return ensemble.members, ensemble.network


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_members_differ_in_their_seeds_alone_and_the_first_has_that_of_the_settings():
    members = list(list_members(PARAMS).values())
    assert members[0].seed == PARAMS.seed
    assert len({member.seed for member in members}) == 3
    assert {member.n_members for member in members} == {1}
    assert all(member.model_copy(update={"seed": PARAMS.seed}) == members[0] for member in members)
    assert [m.seed for m in list_members(narrow_params(n_members=2)).values()] == [m.seed for m in members[:2]]


@pytest.mark.parametrize(("member", "epoch"), [(0, 2), (1, 3), (2, 5)])
def test_killed_in_any_member_and_resumed_it_gives_the_same_bits(tmp_path, member, epoch):
    _, whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", logs=Logs(member, epoch))
    logs = Logs()
    _, resumed = train(tmp_path / "cut", logs=logs)
    assert [len(logs.by_name[number].epochs) for number in range(member)] == [0] * member
    assert len(logs.by_name[member].epochs) == 5 - min(epoch, 4)  # the last epoch is saved with the end of training
    assert same(whole.tensors, resumed.tensors)
    assert whole.metrics == resumed.metrics
    assert [replace(r, seconds=0) for r in whole.history] == [replace(r, seconds=0) for r in resumed.history]


def test_a_network_alone_is_the_first_member(tmp_path):
    alone = train_model(TRAIN, VAL, narrow_params(), state_dir=tmp_path)
    logs = Logs()
    members, _ = train(tmp_path, logs=logs)
    assert logs.by_name[0].epochs == []  # taken over from the training of one network
    assert same(alone.tensors, members[0].tensors)
    assert not same(members[0].tensors, members[1].tensors)


def test_the_joint_network_is_measured_on_validation_pairs(tmp_path):
    members, joint = train(tmp_path)
    assert joint.model_config["n_members"] == 3
    assert joint.best_epoch == 0
    assert len(joint.history) == sum(len(member.history) for member in members)
    from vmnet_pipeline.models.losses import VMNetLoss
    from vmnet_pipeline.training.data import encode_matches
    from vmnet_pipeline.training.validation import evaluate_model

    expected = evaluate_model(joint.build(), VMNetLoss(), VAL, encode_matches(VAL, "id"), 12)
    expected.pop("loss")
    assert joint.metrics == pytest.approx(expected)


def test_one_member_is_given_back_as_it_is(tmp_path):
    (member,), joint = train(tmp_path, narrow_params())
    assert joint is member
    assert "n_members" not in joint.model_config


KINDS = {"canonical": {}, "kernel": {"model": {"music_tower": "kernel", "video_tower": "kernel", "embedding_dim": 24}}}
CANONICAL = {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 12}


def kinds(**given):
    return narrow_params(
        **{"loss": {"name": "contrastive"}, "members": KINDS, "few_pairs": 0, "model": CANONICAL, **given}
    )


def cosines(result, pairs):
    model = result.build()
    return embed_arrays(model, music=pairs.music) @ embed_arrays(model, video=pairs.video).T


def test_a_cosine_of_unlike_members_is_the_weighted_mean_of_theirs(tmp_path):
    many, other = draw_pairs(120, 1), draw_pairs(40, 2)
    done = train_ensemble(many, None, kinds(), state_dir=tmp_path, open_log=open_by_number(Logs()))
    canonical, kernel = done.members
    expected = (cosines(canonical, other) + cosines(kernel, other)) / 2
    np.testing.assert_allclose(cosines(done.network, other), expected, atol=1e-5)
    assert [config["music_tower"] for config in done.network.model_config["members"]] == ["canonical", "kernel"]


def test_a_checkpoint_of_unlike_members_gives_the_same_embeddings_and_its_members_back(tmp_path):
    many, other = draw_pairs(120, 1), draw_pairs(40, 2)
    done = train_ensemble(many, other, kinds(), state_dir=tmp_path / "s", open_log=open_by_number(Logs()))
    network = done.network
    save_checkpoint(tmp_path / "c", Checkpoint(network.model_config, network.tensors))
    read = load_checkpoint(tmp_path / "c")
    assert np.array_equal(
        embed_arrays(build_from_checkpoint(read), music=other.music), embed_arrays(network.build(), music=other.music)
    )
    parts = split_checkpoint(read)
    for part, config in zip(parts, network.model_config["members"], strict=True):
        build_from_checkpoint(part)
        assert part.model_config["music_tower"] == config["music_tower"]


def test_weights_are_equal_in_scores_unless_validation_is_sure():
    rng = np.random.default_rng(0)
    codes = np.arange(60)

    def view(noise, scale):
        x = rng.normal(size=(60, 16))
        unit = lambda a: (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
        wide = np.concatenate([np.ones((60, 1)) * scale, x], axis=1)
        near = np.concatenate([np.ones((60, 1)) * scale, x + noise * rng.normal(size=x.shape)], axis=1)
        return HeldOut(unit(wide), unit(near), codes)

    alike = [[view(1.5, 0.0), view(1.5, 12.0)]]  # the second one's scores lie close together
    weights = choose_weights(alike)
    spreads = [float((part.music @ part.video.T).std()) for part in alike[0]]
    assert weights[1] * spreads[1] == pytest.approx(weights[0] * spreads[0], rel=0.01)
    assert weights.sum() == pytest.approx(1.0)
    sure = choose_weights([[view(0.3, 0.0), view(50.0, 0.0)]])
    assert sure[0] > 0.7


def test_sequences_are_averaged_for_members_that_take_pooled_features(tmp_path):
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 6, size=60)
    steps = rng.normal(size=(int(lengths.sum()), 12)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pairs = replace(draw_pairs(60, 3), music=Sequences(steps, offsets, 6))
    params = kinds(
        members={"attention": {"model": {"music_tower": "sequence", "max_steps": 6, "embedding_dim": 8}}, **KINDS},
        epochs=1,
    )
    params = params.model_copy(
        update={
            "members": {
                **params.members,
                "attention": {
                    "model": {"music_tower": "sequence", "video_tower": "narrow", "max_steps": 6, "embedding_dim": 8}
                },
            }
        }
    )
    done = train_ensemble(pairs, None, params, state_dir=tmp_path, open_log=open_by_number(Logs()))
    assert params.music_steps == 6
    assert done.network.model_config["music_tower"] == "sequence"
    together = embed_arrays(done.network.build(), music=pairs.music)
    means = np.stack([steps[a:b].mean(axis=0) for a, b in pairwise(offsets)])
    alone = embed_arrays(done.members[1].build(), music=means)
    weight = float(done.network.tensors["music.weights"][1])
    np.testing.assert_allclose(together[:, 8 : 8 + alone.shape[1]], alone * np.sqrt(weight), atol=1e-5)


def test_few_pairs_are_fitted_in_closed_form_on_all_of_them(tmp_path):
    few, val, other = draw_pairs(70, 1, per_group=2), draw_pairs(12, 2), draw_pairs(60, 5)
    logs = Logs()
    done = train_ensemble(few, val, kinds(few_pairs=500), state_dir=tmp_path, open_log=open_by_number(logs))
    assert logs.n_epochs == 0  # no step was done
    assert len(done.network.held_out) == 5
    assert sum(len(fold.codes) for fold in done.network.held_out) == 82
    ranks = (-cosines(done.network, other)).argsort(axis=1)
    found = np.mean([i in row[:6] for i, row in enumerate(ranks)])
    assert found > 0.35  # 0.1 is chance
    assert done.network.metrics["mrr"] > 0.2


def test_training_never_makes_a_start_worse(tmp_path):
    many, val = draw_pairs(200, 1), draw_pairs(60, 2)
    wild = narrow_params(model=CANONICAL, loss={"name": "contrastive"}, learning_rate=3.0, epochs=3)
    result = train_model(many, val, wild, state_dir=tmp_path / "wild")
    start = train_model(many, val, wild.model_copy(update={"epochs": 0}), state_dir=tmp_path / "start")
    assert result.metrics["mrr"] >= start.metrics["mrr"]
    assert result.best_epoch == 0
    assert same(result.tensors, start.tensors)
    again = train_model(many, val, wild, state_dir=tmp_path / "wild")
    assert again.metrics["mrr"] == result.metrics["mrr"]


@pytest.mark.parametrize("kill", [1, 2])
def test_a_start_that_is_best_survives_a_kill(tmp_path, kill):
    many, val = draw_pairs(200, 1), draw_pairs(60, 2)
    wild = narrow_params(model=CANONICAL, loss={"name": "contrastive"}, learning_rate=3.0, epochs=3)
    whole = train_model(many, val, wild, state_dir=tmp_path / "whole")
    log = Logs("x", kill)
    with log("x", None) as one, pytest.raises(Killed):
        train_model(many, val, wild, state_dir=tmp_path / "cut", on_epoch=one.add)
    assert same(whole.tensors, train_model(many, val, wild, state_dir=tmp_path / "cut").tensors)


@pytest.mark.parametrize(("reached", "is_kept"), [(0.99, True), (0.01, False)])
def test_an_ensemble_that_was_better_on_its_held_out_pairs_is_kept(tmp_path, reached, is_kept):
    """Its kernel has learnt from validation pairs, so measuring it on them would always favour it."""
    many, val = draw_pairs(120, 1), draw_pairs(60, 2)
    logs = open_by_number(Logs())
    first = train_ensemble(many, val, kinds(epochs=0), state_dir=tmp_path / "a", open_log=logs).network
    start = StartPoint(Checkpoint(first.model_config, first.tensors, metrics={"mrr": reached}))
    params = kinds(start_from="x", epochs=2)
    second = train_ensemble(
        draw_pairs(90, 9), val, params, state_dir=tmp_path / "b", open_log=logs, start=start
    ).network
    assert same(second.tensors, first.tensors) == is_kept


def test_a_start_without_a_closed_form_is_measured_on_the_validation_pairs(tmp_path):
    many, val = draw_pairs(200, 1), draw_pairs(60, 2)
    first = train_model(many, val, kinds(epochs=0, members={}), state_dir=tmp_path / "a")
    start = StartPoint(Checkpoint(first.model_config, first.tensors, metrics={"mrr": 0.0}))
    few = draw_pairs(12, 9)  # what is learnt from these alone is worse
    params = kinds(start_from="x", learning_rate=3.0, epochs=2)
    logs = open_by_number(Logs())
    second = train_ensemble(few, val, params, state_dir=tmp_path / "b", open_log=logs, start=start).network
    assert second.metrics["mrr"] >= first.metrics["mrr"]


def test_closed_forms_learn_from_validation_pairs_once_weights_are_chosen(tmp_path):
    many, val = draw_pairs(120, 1), draw_pairs(60, 2)
    done = train_ensemble(many, val, kinds(epochs=0), state_dir=tmp_path, open_log=open_by_number(Logs()))
    assert done.members[1].model_config["n_landmarks"] == 120
    assert done.network.model_config["members"][1]["n_landmarks"] == 180
    (held_out,) = done.network.held_out  # before that
    assert len(held_out.codes) == 60


def fit_few(tmp_path, pairs, val=None, start=None, **given):
    logs = open_by_number(Logs())
    return train_ensemble(pairs, val, kinds(few_pairs=500, **given), state_dir=tmp_path, open_log=logs, start=start)


def test_few_pairs_that_agree_weakly_get_the_member_that_chooses_nothing(tmp_path):
    rng = np.random.default_rng(0)
    pairs = draw_pairs(40, 1, per_group=2)
    pairs = replace(pairs, music=pairs.music + 3 * rng.normal(size=pairs.music.shape).astype("f4"))
    done = fit_few(tmp_path, pairs)
    assert done.network.model_config["music_tower"] == "reduced"
    assert "members" not in done.network.model_config


def test_another_member_takes_over_where_held_out_pairs_are_sure_of_it():
    rng = np.random.default_rng(0)
    unit = lambda a: (a / np.linalg.norm(a, axis=1, keepdims=True)).astype("f4")  # noqa: E731

    def fold(noises, groups):
        x = rng.normal(size=(len(groups), 8))
        pairs = [(unit(x), unit(x + noise * rng.normal(size=x.shape))) for noise in noises]
        return [HeldOut(a, b, np.arange(len(groups)), groups) for a, b in pairs]

    many = tuple(map(str, range(40)))
    assert choose_few_weights([fold((9.0, 0.3), many)])[1] == 1.0
    assert choose_few_weights([fold((0.3, 9.0), many)])[0] == 1.0
    alike = [fold((1.0, 1.0), many) for _ in range(2)]
    assert choose_few_weights(alike)[0] in (1.0, pytest.approx(0.5, abs=0.1))
    one_group = ("same",) * 40  # a gain on items of one work is one observation
    assert choose_few_weights([fold((1.2, 0.3), one_group)])[0] == 1.0


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9])
def test_a_handful_of_pairs_gives_a_network(tmp_path, n):
    done = fit_few(tmp_path, draw_pairs(n, 1))
    assert np.isfinite(cosines(done.network, draw_pairs(10, 2))).all()


def test_pairs_that_are_not_finite_are_left_out_and_named(tmp_path, caplog):
    pairs = draw_pairs(30, 1)
    music, video = pairs.music.copy(), pairs.video.copy()
    music[3], video[5] = np.nan, np.inf
    done = fit_few(tmp_path / "a", replace(pairs, music=music, video=video))
    assert "features of 1-3, 1-5 hold NaN or infinity" in caplog.text
    kept = np.array([row for row in range(30) if row not in (3, 5)])
    clean = replace(
        pairs,
        ids=tuple(pairs.ids[r] for r in kept),
        groups=tuple(pairs.groups[r] for r in kept),
        music=pairs.music[kept],
        video=pairs.video[kept],
    )
    assert same(done.network.tensors, fit_few(tmp_path / "b", clean).network.tensors)
    with pytest.raises(TrainingError, match="at least 2 usable pairs"):
        fit_few(tmp_path / "c", replace(pairs, music=np.full_like(music, np.nan)))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("silence", "all items have the same music features"),
        ("black", "all items have the same video features"),
        ("one group", "all pairs are of one group"),
        ("few groups", "figures rest on 3 groups"),
    ],
)
def test_what_a_small_collection_lacks_is_told(tmp_path, caplog, fault, told):
    pairs, params = draw_pairs(24, 1), kinds(few_pairs=500)
    if fault in ("silence", "black"):
        side = "music" if fault == "silence" else "video"
        pairs = replace(pairs, **{side: np.ones_like(getattr(pairs, side))})
    else:
        n = 1 if fault == "one group" else 3
        pairs = replace(pairs, groups=tuple(str(i % n) for i in range(24)))
    done = fit_few(tmp_path, pairs)
    assert told in caplog.text
    calibration = calibrate_result(done.network, None, params)
    assert calibration is not None
    assert bool(calibration.warn_of_chance()) == (fault in ("silence", "black"))
    assert ("not better than chance" in caplog.text) == (fault in ("silence", "black"))


def test_a_start_in_closed_form_is_kept_where_it_did_better_on_pairs_held_out_from_it(tmp_path):
    many, few = draw_pairs(80, 1), draw_pairs(12, 3)
    first = fit_few(tmp_path / "a", many).network
    calibration = calibrate_result(first, None, kinds())
    good = StartPoint(Checkpoint(first.model_config, first.tensors, calibration=calibration))
    poor = calibration.model_copy(update={"mrr": calibration.mrr_chance})
    bad = StartPoint(replace(good.checkpoint, calibration=poor))
    unlike = replace(few, music=np.random.default_rng(0).normal(size=few.music.shape).astype("f4"))
    kept = fit_few(tmp_path / "b", unlike, start=good, start_from="x").network
    assert same(kept.tensors, first.tensors)
    assert not same(fit_few(tmp_path / "c", few, start=bad, start_from="x").network.tensors, first.tensors)


def test_a_start_in_closed_form_cannot_be_trained_on(tmp_path):
    few = draw_pairs(40, 3)
    model = {"music_tower": "reduced", "video_tower": "reduced"}
    first = train_model(few, None, narrow_params(model=model), state_dir=tmp_path / "a")
    start = StartPoint(Checkpoint(first.model_config, first.tensors))
    with pytest.raises(ParameterError, match="never trained on"):
        train_model(few, None, narrow_params(start_from="x"), state_dir=tmp_path / "b", start=start)
    many = kinds(epochs=1, start_from="x")  # several members: they start from scratch, and the better one is kept
    done = train_ensemble(
        draw_pairs(60, 5),
        draw_pairs(20, 6),
        many,
        state_dir=tmp_path / "c",
        open_log=open_by_number(Logs()),
        start=start,
    )
    assert np.isfinite(cosines(done.network, few)).all()


def test_few_pairs_of_several_backends_are_compared_backend_by_backend(tmp_path):
    """A wide backend without meaning does not drown a narrow one with it."""
    rng = np.random.default_rng(0)

    def widen(pairs):
        noise = (50 * rng.normal(size=(len(pairs), 400))).astype("f4")
        parts = {"music": (FeaturePart("own", 12), FeaturePart("noise", 400))}
        return replace(pairs, music=np.concatenate([pairs.music, noise], axis=1), parts=parts)

    few, other = widen(draw_pairs(60, 1)), widen(draw_pairs(60, 5))
    model = {"music_tower": "reduced", "video_tower": "reduced"}
    result = train_model(few, None, narrow_params(model=model), state_dir=tmp_path / "a")
    assert result.model_config["ranks"] == list_ranks(2, 1)
    whole = replace(few, parts={})
    drowned = train_model(whole, None, narrow_params(model=model), state_dir=tmp_path / "b")
    ranks = [1 + (cosines(one, other) > cosines(one, other).diagonal()[:, None]).sum(1) for one in (result, drowned)]
    assert np.median(ranks[0]) < np.median(ranks[1]) - 5
