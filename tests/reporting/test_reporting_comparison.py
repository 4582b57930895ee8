"""Comparisons as text and plot."""

import numpy as np
import pytest

from vmnet_pipeline.experiments.comparison import Row, list_contributions, summarise_rows
from vmnet_pipeline.params import CompareParams
from vmnet_pipeline.reporting.comparison import format_comparison, plot_comparison
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


def test_cut_offs_that_reach_the_gallery_are_left_out():
    text = format_comparison(make_comparison(n=8, n_groups=4))
    assert "R@5 %" in text
    assert "R@10" not in text


def test_the_plot_has_every_row_in_every_panel(tmp_path):
    figure = plot_comparison(COMPARISON)
    panels = figure.axes
    assert len(panels) == 3
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == [row["name"] for row in COMPARISON["rows"]]
    points = [line.get_xdata()[0] for line in panels[1].lines]
    assert points == pytest.approx([row["figures"]["both/mrr"]["value"] for row in COMPARISON["rows"]])
    figure.savefig(tmp_path / "plot.png")


def test_what_has_no_figure_on_validation_pairs_has_a_dash():
    rows = [{**row, "val_mrr": []} if row["name"] == "b" else row for row in COMPARISON["rows"]]
    lines = format_comparison({**COMPARISON, "rows": rows}).splitlines()
    (*_, told) = (line.split()[-2] for line in lines if line.startswith("b  "))
    assert told == "-"
    assert any("0.250" in line for line in lines)
