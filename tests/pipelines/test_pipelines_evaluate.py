"""Evaluation of a calibrated network: reliability and the sentence on chance, in results, table, plot and report."""

import json
from dataclasses import replace

import numpy as np
import pytest

from report_page import Page
from tiny_pairs import draw_pairs, narrow_params
from vmnet_pipeline.evaluation.calibration import measure_reliability
from vmnet_pipeline.models.checkpoints import Checkpoint, build_from_checkpoint
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.params import EvaluateParams
from vmnet_pipeline.pipelines.evaluate.nodes import evaluate_checkpoint
from vmnet_pipeline.reporting.console_table import format_recall_table
from vmnet_pipeline.reporting.plots import plot_reliability
from vmnet_pipeline.reporting.report import build_report
from vmnet_pipeline.training import train_model
from vmnet_pipeline.training.calibration import calibrate_result

SIZES = {"train": 120, "val": 40, "test": 50}
FAST = {"n_resamples": 50}


@pytest.fixture(scope="module")
def pairs():
    drawn = [draw_pairs(n, seed) for seed, n in enumerate(SIZES.values())]
    ids, groups = (sum((getattr(part, name) for part in drawn), ()) for name in ("ids", "groups"))
    return PairFiles(
        ids, groups, *(np.concatenate([getattr(p, side) for p in drawn]) for side in ("music", "video")), SIZES
    )


@pytest.fixture(scope="module")
def checkpoint(pairs, tmp_path_factory):
    train, val, params = pairs.subset("train"), pairs.subset("val"), narrow_params(epochs=20)
    result = train_model(train, val, params, state_dir=tmp_path_factory.mktemp("state"))
    return Checkpoint(result.model_config, result.tensors, calibration=calibrate_result(result, val, params))


@pytest.fixture(scope="module")
def results(pairs, checkpoint):
    return evaluate_checkpoint(pairs, checkpoint, EvaluateParams(**FAST))[0]


def test_reliability_is_measured_on_the_test_pairs(pairs, checkpoint, results):
    model, test = build_from_checkpoint(checkpoint), pairs.subset("test")
    sides = embed_arrays(model, music=test.music), embed_arrays(model, video=test.video)
    expected = measure_reliability(checkpoint.calibration.curve, *sides, np.arange(50))
    assert results["reliability"] == {"n_held_out": 40, **expected}
    assert results["warnings"] == []
    json.dumps(results, allow_nan=False)


def test_table_report_and_plot_show_it(results):
    found = results["reliability"]
    error = f"{100 * found['expected_calibration_error']:.2f} points"
    for text in (format_recall_table(results), Page(build_report(results)).text):
        assert f"Expected calibration error of the 10 best answers: {error}" in " ".join(text.split())
    figure = plot_reliability(found)
    (axes,) = figure.axes
    points = axes.get_lines()[1]
    np.testing.assert_allclose(points.get_xdata(), [100 * part["predicted"] for part in found["bins"]])
    np.testing.assert_allclose(points.get_ydata(), [100 * part["observed"] for part in found["bins"]])
    assert error in axes.get_title(loc="left")
    page = build_report(results, plots={"reliability": figure})
    assert "Probability of the best answers against the share that is right" in page
    older = {name: value for name, value in results.items() if name != "reliability"}
    assert "calibration error" not in format_recall_table(older) + build_report(older)


def test_a_network_that_is_not_better_than_chance_is_told_where_the_table_is(pairs, checkpoint):
    at_chance = replace(checkpoint, calibration=checkpoint.calibration.model_copy(update={"mrr_low": 0.0}))
    results, _ = evaluate_checkpoint(pairs, at_chance, EvaluateParams(**FAST))
    sentence = "this model is not better than chance on its validation pairs (MRR "
    for text in (results["warnings"][0], format_recall_table(results), Page(build_report(results)).text):
        assert sentence in " ".join(text.split())


def test_networks_without_calibration_and_mismatched_pairs_have_no_reliability(pairs, checkpoint):
    plain, _ = evaluate_checkpoint(pairs, replace(checkpoint, calibration=None), EvaluateParams(**FAST))
    control, _ = evaluate_checkpoint(pairs, checkpoint, EvaluateParams(**FAST, shuffle_pairs=True))
    few = replace(checkpoint, calibration=checkpoint.calibration.model_copy(update={"curve": None}))
    assert "reliability" not in plain and "reliability" not in control
    assert "reliability" not in evaluate_checkpoint(pairs, few, EvaluateParams(**FAST))[0]


def test_right_answers_are_those_of_the_group_where_the_evaluation_says_so(pairs, checkpoint):
    doubled = replace(pairs, groups=tuple(f"g{i // 2}" for i in range(210)))
    by_group, _ = evaluate_checkpoint(doubled, checkpoint, EvaluateParams(**FAST, positives="group"))
    by_id, _ = evaluate_checkpoint(doubled, checkpoint, EvaluateParams(**FAST))
    right = [sum(part["observed"] * part["n"] for part in found["reliability"]["bins"]) for found in (by_group, by_id)]
    assert right[0] > right[1]
