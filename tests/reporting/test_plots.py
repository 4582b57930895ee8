from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sample_evaluation import evaluate_noisy_pairs
from vmnet_pipeline.reporting.plots import plot_ranks, plot_recall, plot_training

if TYPE_CHECKING:
    from vmnet_pipeline.evaluation.evaluate import Evaluation


def find_curves(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def test_recall_curve_shows_the_figures(evaluation: dict[str, Any]) -> None:
    (axes,) = plot_recall(evaluation).axes
    curves = find_curves(axes)
    ks = [1, 5, 10, 20, 25]  # 50 and 100 reach the pool
    for label, direction in (("music → video", "music_to_video"), ("video → music", "video_to_music")):
        recall = evaluation["directions"][direction]["recall"]
        assert curves[label] == (ks, [100 * recall[str(k)]["value"] for k in ks])
    assert curves["chance"][1] == pytest.approx([2, 10, 20, 40, 50])
    band = axes.collections[0].get_paths()[0].vertices
    first = evaluation["directions"]["music_to_video"]["recall"]["1"]
    assert {100 * first["low"], 100 * first["high"]} <= set(np.round(band[band[:, 0] == 1][:, 1], 9))
    assert "pool of 50" in axes.get_title(loc="left")


def test_recall_curve_without_intervals_or_small_k() -> None:
    (axes,) = plot_recall(evaluate_noisy_pairs(n=2, ks=(2, 5)).to_dict()).axes
    assert not axes.collections
    assert find_curves(axes)["chance"] == ([2, 5], [100.0, 100.0])


@pytest.mark.parametrize("n", [2, 7, 50, 333])
def test_every_rank_is_in_the_histogram(n: int) -> None:
    measured = evaluate_noisy_pairs(n=n)
    figure = plot_ranks(measured.to_dict(), measured.query_rows)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == n
        assert len(axes.patches) <= 26


def test_chance_level_of_ranks_needs_one_positive(measured: Evaluation) -> None:
    assert "chance" in find_curves(plot_ranks(measured.to_dict(), measured.query_rows).axes[0])
    several = evaluate_noisy_pairs(positives="group")
    assert "chance" not in find_curves(plot_ranks(several.to_dict(), several.query_rows).axes[0])


def test_training_curves_show_terms_validation_and_best_epoch(history: list[dict[str, float]]) -> None:
    panels = {axes.get_title(loc="left"): find_curves(axes) for axes in plot_training(history, best_epoch=6).axes}
    assert panels["Loss terms"]["total"] == (list(range(1, 9)), [1 / epoch for epoch in range(1, 9)])
    assert set(panels["Loss terms"]) >= {"ranking, music → video", "structure, video", "total, on validation"}
    assert panels["Mean reciprocal rank on validation"]["MRR"] == ([2, 4, 6, 8], pytest.approx([0.2, 0.4, 0.6, 0.8]))
    assert "recall@5, music → video" in panels["Recall@K on validation"]
    assert panels["Median rank on validation"]["median rank, music → video"][1] == [7.5] * 4
    assert panels["Other metrics on validation"]["new idea"][1] == [3.0] * 4
    shown = [curves for title, curves in panels.items() if title]
    assert all(curves["kept: epoch 6"][0] == [6, 6] for curves in shown)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"epoch": 1}],
        [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": 1.0}],
        [{"loss": 2.0, "val_mrr": None}],
        [{"epoch": 1, "val_mrr": 0.3}],
    ],
)
def test_training_curves_of_scant_histories_can_be_drawn(history: list[dict[str, Any]]) -> None:
    figure = plot_training(history)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    assert figure.axes


def test_global_plotting_state_is_left_alone(evaluation: dict[str, Any]) -> None:
    before = list_open_figures()
    plot_recall(evaluation).savefig(io.BytesIO(), format="png", dpi=40)
    assert list_open_figures() == before


def list_open_figures() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return [] if pyplot is None else pyplot.get_fignums()


def test_curves_of_several_members_are_not_joined():
    history = [{"member": m, "epoch": e, "loss": 1.0 / e} for m in (1, 2) for e in (1, 2, 3)]
    axes = plot_training(history).axes[0]
    epochs = axes.lines[0].get_xdata()
    assert np.isnan(epochs[3])
    assert [x for x in epochs if not np.isnan(x)] == [1, 2, 3, 1, 2, 3]


def test_networks_in_closed_form_have_no_loss():
    rows = [{"member": 1, "epoch": e, "steps": 3 * e, "loss": 1.0 / e, "val_mrr": 0.1} for e in (1, 2)]
    closed = {"member": 2, "epoch": 1, "steps": 0, "loss": -0.2, "val_mrr": 0.3}
    panels = {axes.get_title(loc="left"): find_curves(axes) for axes in plot_training([*rows, closed]).axes}
    assert panels["Loss terms"]["total"] == ([1, 2], [1.0, 0.5])
    assert 0.3 in panels["Mean reciprocal rank on validation"]["MRR"][1]
    alone = {axes.get_title(loc="left") for axes in plot_training([closed]).axes}
    assert "Loss terms" not in alone
