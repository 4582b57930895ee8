from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from tiny_pairs import Killed, Logs, draw_pairs, narrow_params
from vmnet_pipeline.errors import ParameterError, TrainingError
from vmnet_pipeline.experiments.comparison import compare_variants, list_metrics, rank_pairs, summarise_rows
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.params import CompareParams
from vmnet_pipeline.reporting.comparison import format_comparison
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.ensembles import join_results

pytestmark = pytest.mark.long

SIDES = {"train": draw_pairs(60, 1), "val": draw_pairs(20, 2), "test": draw_pairs(40, 3, per_group=2)}
VARIANTS = {"plain": {}, "noisy": {"feature_noise": 0.5}, "two": {"n_members": 2, "epochs": 2}}
PARAMS = CompareParams(variants=VARIANTS, n_resamples=200)


def compare(folder, params=PARAMS, sides=SIDES, logs=None):
    return compare_variants(sides, narrow_params(), params, state_dir=folder, open_log=logs or Logs())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder, logs = tmp_path_factory.mktemp("comparison"), Logs()
    return folder, compare(folder, logs=logs), logs


def row(comparison, name):
    (found,) = [item for item in comparison["rows"] if item["name"] == name]
    return found


def test_every_variant_ensemble_and_baseline_is_a_row(done):
    _, comparison, _ = done
    names = [item["name"] for item in comparison["rows"]]
    assert names == ["plain", "plain x3", "noisy", "noisy x3", "two", "two x3", "chance", "cca", "pls", "neighbours"]
    assert comparison["sizes"] == {"train": 60, "val": 20, "test": 40}
    assert comparison["n_groups"] == 20
    assert json.loads(json.dumps(comparison)) == comparison
    assert [item["seed"] for item in (comparison["settings"]["plain"],)] == [0]
    assert comparison["settings"]["noisy"]["feature_noise"] == 0.5


def test_every_training_has_a_log_with_settings_curves_and_figures(done):
    _, comparison, logs = done
    assert set(logs.by_name) >= {f"{name}, seed {seed}" for name in VARIANTS for seed in (0, 1, 2)}
    assert len(logs.by_name) == 12  # and one more for the second members
    log = logs.by_name["noisy, seed 2"]
    assert logs.parameters["noisy, seed 2"]["train"].seed == 2
    assert [record.epoch for record in log.history] == [1, 2, 3, 4, 5]
    for metric, values in row(comparison, "noisy")["per_seed"].items():
        assert log.results[metric] == pytest.approx(values[2])


def test_a_repeated_comparison_trains_nothing_and_says_the_same(done, caplog):
    folder, comparison, _ = done
    logs = Logs()
    caplog.set_level(logging.INFO, logger="vmnet_pipeline.progress")
    assert compare(folder, logs=logs) == comparison
    lines = [record.getMessage() for record in caplog.records if record.name == "vmnet_pipeline.progress"]
    assert [line.partition(",")[0] for line in lines] == [f"comparison: {n} of 9" for n in range(1, 10)]
    assert all(line.endswith(" s left") for line in lines[:-1])
    assert logs.n_epochs == 0
    assert all(len(log.history) > 0 for log in logs.by_name.values())


def test_killed_and_resumed_it_says_the_same(done, tmp_path):
    _, comparison, logs = done
    with pytest.raises(Killed):
        compare(tmp_path, logs=Logs("noisy, seed 1", 2))
    rest = Logs()
    resumed = compare(tmp_path, logs=rest)
    assert rest.n_epochs == logs.n_epochs - 3 * 5 - 5 - 2
    assert [item["figures"] for item in resumed["rows"]] == [item["figures"] for item in comparison["rows"]]


def test_the_test_pairs_choose_nothing(done, tmp_path):
    folder, comparison, _ = done
    logs = Logs()
    other = compare(folder, sides={**SIDES, "test": draw_pairs(30, 9)}, logs=logs)
    assert logs.n_epochs == 0  # the same networks
    for a, b in zip(comparison["rows"], other["rows"], strict=True):
        if a["name"] != "chance":
            assert a["val_mrr"] == b["val_mrr"]
        assert a["best_epochs"] == b["best_epochs"]


def test_figures_are_those_of_the_ranks(done, tmp_path):
    _, comparison, _ = done
    test, results = SIDES["test"], []
    for seed in (0, 1, 2):
        params = narrow_params(seed=seed)
        results.append(train_model(SIDES["train"], SIDES["val"], params, state_dir=tmp_path / str(seed)))

    def rank(result):
        model = result.build()
        return rank_pairs(embed_arrays(model, music=test.music), embed_arrays(model, video=test.video), test)

    ranks = np.stack([rank(result) for result in results])  # (seeds, 2, n)
    found = row(comparison, "plain")
    for place, direction in enumerate(("music_to_video", "video_to_music")):
        for k in (1, 5, 10):
            figure = found["figures"][f"{direction}/recall_at_{k}"]
            assert figure["value"] == pytest.approx((ranks[:, place] <= k).mean())
            assert figure["low"] <= figure["value"] <= figure["high"]
        assert found["figures"][f"{direction}/mrr"]["value"] == pytest.approx((1 / ranks[:, place]).mean())
        assert found["median_rank"][direction] == pytest.approx(np.median(ranks[:, place], axis=1).mean())
    assert found["figures"]["both/mrr"]["value"] == pytest.approx((1 / ranks).mean())
    assert found["best_epochs"] == [result.best_epoch for result in results]
    assert found["val_mrr"] == pytest.approx([result.metrics["mrr"] for result in results])
    joint = rank(join_results(results, SIDES["val"], narrow_params()))
    assert row(comparison, "plain x3")["figures"]["both/mrr"]["value"] == pytest.approx((1 / joint).mean())


def test_differences_are_paired(done):
    _, comparison, _ = done
    assert comparison["against"] == "plain"
    plain, noisy = row(comparison, "plain"), row(comparison, "noisy")
    assert all(figure == {"value": 0, "low": 0, "high": 0} for figure in plain["difference"].values())
    for name in list_metrics(PARAMS.ks):
        difference = noisy["difference"][name]
        assert difference["value"] == pytest.approx(noisy["figures"][name]["value"] - plain["figures"][name]["value"])
    paired = noisy["difference"]["both/mrr"]
    apart = [noisy["figures"]["both/mrr"][end] - plain["figures"]["both/mrr"][end] for end in ("low", "high")]
    assert paired["low"] < paired["value"] < paired["high"]
    assert apart != pytest.approx([paired["low"], paired["high"]])


def test_another_row_can_be_the_one_to_compare_with(done):
    folder, _, _ = done
    comparison = compare(folder, PARAMS.model_copy(update={"against": "cca"}))
    assert comparison["against"] == "cca"
    assert row(comparison, "cca")["difference"]["both/mrr"]["value"] == 0
    assert row(comparison, "chance")["difference"]["both/mrr"]["value"] < -0.1


def test_one_seed_has_no_ensemble_and_one_group_no_interval(tmp_path):
    params = CompareParams(variants={"plain": {"epochs": 1}}, seeds=(4,), baselines=("cca",))
    sides = {**SIDES, "test": replace(SIDES["test"], groups=("song",) * 40)}
    comparison = compare(tmp_path, params, sides)
    assert [item["name"] for item in comparison["rows"]] == ["plain", "cca"]
    assert comparison["rows"][0]["figures"]["both/mrr"]["low"] is None


def test_pairs_that_were_fitted_on_give_no_validation_figure(tmp_path):
    canonical = {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 8}
    kernel = {"model": {"music_tower": "kernel", "video_tower": "kernel"}, "kernel": {"width": 0.5, "ridge": 1e-3}}
    members = {"canonical": {}, "kernel": kernel}
    few = {"model": canonical, "members": members, "few_pairs": 500}
    params = CompareParams(variants={"few": few, "one": {**few, "few_pairs": 0, "epochs": 1}}, seeds=(4,), baselines=())
    comparison = compare(tmp_path, params)
    assert row(comparison, "few")["val_mrr"] == []  # fitted on them in the end, and held out in folds
    (held_out,) = row(comparison, "one")["val_mrr"]
    assert 0.0 < held_out < 0.9
    lines = [line.split() for line in format_comparison(comparison).splitlines()]
    assert ["few", "-"] in [[line[0], line[-2]] for line in lines if len(line) > 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochz": 3}, "epochz"),
        ({"loss": {"margin": 9}}, "loss.margin"),
        ({"protocol": "reference", "shuffle": True}, "shuffle"),
        ({"model": {"music_tower": "tall"}}, "no music tower 'tall'"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_before_anything_is_trained(tmp_path, settings, message):
    logs = Logs()
    params = CompareParams(variants={"fine": {}, "odd": settings})
    with pytest.raises(ParameterError, match=rf"compare\.variants\.odd.*{message}"):
        compare(tmp_path, params, logs=logs)
    assert not logs.by_name


def test_a_training_that_fails_is_named(tmp_path):
    params = CompareParams(variants={"wild": {"learning_rate": 1e30, "standardise": False}}, seeds=(3,))
    with pytest.raises(TrainingError, match="variant wild, seed 3: the loss is not finite"):
        compare(tmp_path, params)


def test_a_side_without_pairs_is_named(tmp_path):
    with pytest.raises(TrainingError, match="at least 2 pairs in val, not 1"):
        compare(tmp_path, sides={**SIDES, "val": draw_pairs(1, 2)})


def test_rows_without_ensembles_of_unlike_seeds_can_be_summarised(done):
    _, comparison, _ = done
    assert summarise_rows.__doc__
    assert row(comparison, "cca")["seeds"] == []
    assert len(row(comparison, "chance")["per_seed"]["both/mrr"]) == 3


def test_what_happens_is_logged(done, caplog):
    folder, _, _ = done
    with caplog.at_level(logging.INFO):
        compare(folder)
    assert "variant two, seed 1" in caplog.text
    assert "baseline pls" in caplog.text


def test_networks_that_learnt_from_validation_pairs_have_no_figure_on_them(tmp_path):
    few = {"canonical": {"model": {"music_tower": "canonical", "video_tower": "canonical", "embedding_dim": 8}}}
    one = CompareParams(
        variants={"few": {"members": few, "few_pairs": 500}, "plain": {}}, seeds=(0, 1), baselines=(), n_resamples=20
    )
    comparison = compare_variants(SIDES, narrow_params(), one, state_dir=tmp_path, open_log=Logs())
    told = {item["name"]: item["val_mrr"] for item in comparison["rows"]}
    assert told["few"] == told["few x2"] == []
    assert len(told["plain"]) == 2


def test_a_network_without_training_is_a_row_of_its_own(tmp_path):
    from toy_spaces import ToyAudio, ToyVideo, draw_pairs
    from vmnet_pipeline.inference.zero_shot import make_zero_shot
    from vmnet_pipeline.models.checkpoints import build_from_checkpoint

    network = build_from_checkpoint(
        make_zero_shot({"music": ToyAudio({}, weights_dir="."), "video": ToyVideo({}, weights_dir=".")})
    )
    sides = {name: draw_pairs(ToyVideo, 24, seed) for name, seed in (("train", 1), ("val", 2), ("test", 3))}
    one = CompareParams(variants={"plain": {}}, seeds=(0,), baselines=("chance",), n_resamples=20)
    comparison = compare_variants(
        sides, narrow_params(epochs=1), one, state_dir=tmp_path, open_log=Logs(), zero_shot=network
    )
    assert [item["name"] for item in comparison["rows"]] == ["plain", "chance", "zero-shot"]
    found = row(comparison, "zero-shot")
    ranks = rank_pairs(
        embed_arrays(network, music=sides["test"].music),
        embed_arrays(network, video=sides["test"].video),
        sides["test"],
    )
    assert found["kind"] == "baseline" and len(found["val_mrr"]) == 1 and found["seconds"] == []
    assert found["figures"]["both/mrr"]["value"] == pytest.approx((1 / ranks).mean())
    assert found["figures"]["both/mrr"]["value"] > row(comparison, "chance")["figures"]["both/mrr"]["value"] + 0.1
