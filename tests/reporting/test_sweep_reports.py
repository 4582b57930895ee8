"""Comparisons and searches as text, table, YAML and plot."""

import numpy as np
import pandas as pd
import pytest
import yaml

from vmnet_pipeline.experiments.comparison import Row, list_contributions, summarise_rows
from vmnet_pipeline.params import CompareParams
from vmnet_pipeline.reporting.comparison import format_comparison, plot_comparison
from vmnet_pipeline.reporting.plots import plot_training
from vmnet_pipeline.reporting.tuning import format_tuning, tabulate_trials, write_settings
from vmnet_pipeline.types import PairArrays


def make_comparison(n=40, seeds=(0, 1, 2), n_groups=10):
    rng = np.random.default_rng(1)
    ids = tuple(str(i) for i in range(n))
    pairs = PairArrays(ids, tuple(str(i % n_groups) for i in range(n)), np.zeros((n, 1)), np.zeros((n, 1)))
    params = CompareParams(variants={"a_name_of_20_letters": {}, "b": {}}, seeds=seeds, n_resamples=50)

    def make_row(name, kind, high, n_seeds):
        ranks = rng.integers(1, high, size=(n_seeds, 2, n)).astype(float)
        values = np.stack([list_contributions(item, params.ks) for item in ranks])
        return Row(
            name, kind, values, np.median(ranks, axis=2), (0.25,) * n_seeds, seeds=seeds[:n_seeds], seconds=(2.0,)
        )

    rows = [
        make_row("a_name_of_20_letters", "variant", n, len(seeds)),
        make_row("b", "variant", 2, len(seeds)),
        make_row("b x3", "ensemble", 8, 1),
        make_row("cca", "baseline", 9, 1),
    ]
    return summarise_rows(rows, pairs, params) | {"sizes": {"train": 9, "val": 9, "test": n}}


COMPARISON = make_comparison()


def test_a_comparison_is_readable_at_100_columns():
    text = format_comparison(COMPARISON)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert lines[0] == "Comparison on 40 test pairs in 10 groups"
    for words in (
        "music -> video",
        "video -> music",
        "minus a_name_of_20_letters",
        "R@10, points",
        "over seeds 0, 1, 2",
    ):
        assert words in text
    assert sum(line.startswith("cca ") for line in lines) == 3
    (best,) = [line for line in lines if line.startswith("b  ") and "+" in line]
    difference = COMPARISON["rows"][1]["difference"]["both/recall_at_10"]
    assert f"{100 * difference['value']:+.1f} [{100 * difference['low']:+.1f},{100 * difference['high']:+.1f}]" in best
    assert "Warning" not in text


def test_columns_never_run_together():
    for line in format_comparison(COMPARISON).splitlines():
        assert not any(f"]{digit}" in line for digit in "0123456789")


def test_few_seeds_and_one_group_are_said_and_no_error():
    text = format_comparison(make_comparison(seeds=(0,), n_groups=1))
    assert "fewer than three seeds" in text
    assert "[9" not in text.replace("[95", "")


def test_a_cut_off_that_says_nothing_is_not_compared():
    assert "R@5, points" in format_comparison(make_comparison(n=10, n_groups=5))


def test_the_plot_has_every_row_in_every_panel(tmp_path):
    figure = plot_comparison(COMPARISON)
    panels = figure.axes
    assert len(panels) == 3
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == [row["name"] for row in COMPARISON["rows"]]
    points = [line.get_xdata()[0] for line in panels[1].lines]
    assert points == pytest.approx([row["figures"]["both/mrr"]["value"] for row in COMPARISON["rows"]])
    figure.savefig(tmp_path / "plot.png")


TUNING = {
    "n_trials": 3,
    "train": {"learning_rate": 0.5, "loss": {"margin": 0.1, "top_k": None}, "seed": 3},
    "trials": [
        {"number": 0, "state": "complete", "value": 0.2, "epochs": 4, "best_epoch": 2, "seconds": 1.0,
         "values": {"learning_rate": 0.25}, "error": None},
        {"number": 2, "state": "complete", "value": 0.3, "epochs": 4, "best_epoch": 2, "seconds": 1.0,
         "values": {"learning_rate": 0.5}, "error": None},
        {"number": 3, "state": "failed", "value": None, "epochs": 0, "best_epoch": None, "seconds": 1.0,
         "values": {"learning_rate": 9.0}, "error": "TrainingError: the loss is not finite" + "x" * 99},
    ],
}  # fmt: skip
TUNING["best"] = TUNING["trials"][1]


def test_a_search_lists_the_best_trials_first_and_the_failed_ones():
    lines = format_tuning(TUNING).splitlines()
    assert lines[0] == "Search: 2 complete, 0 pruned, 1 failed"
    assert [line.split()[0] for line in lines[4:]] == ["2", "0", "3"]
    assert "learning_rate=0.5" in lines[4]
    assert "failed: TrainingError" in lines[6]
    assert max(len(line) for line in lines) <= 100


def test_the_best_settings_are_a_parameter_file_and_an_argument():
    text = write_settings(TUNING)
    assert yaml.safe_load(text) == {"train": TUNING["train"]}
    assert "--params train.learning_rate=0.5,train.loss.margin=0.1,train.loss.top_k=null,train.seed=3" in text


def test_trials_are_a_table_with_a_column_per_setting():
    table = tabulate_trials(TUNING)
    assert table["learning_rate"].tolist() == [0.25, 0.5, 9.0]
    assert table["state"].tolist() == ["complete", "complete", "failed"]
    assert pd.isna(table["value"][2])


def test_curves_of_several_members_are_not_joined():
    history = [{"member": m, "epoch": e, "loss": 1.0 / e} for m in (1, 2) for e in (1, 2, 3)]
    axes = plot_training(history).axes[0]
    epochs = axes.lines[0].get_xdata()
    assert np.isnan(epochs[3])
    assert [x for x in epochs if not np.isnan(x)] == [1, 2, 3, 1, 2, 3]
