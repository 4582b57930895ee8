from __future__ import annotations

from typing import Any

from sample_evaluation import drop_new_figures, evaluate_noisy_pairs
from vmnet_pipeline.reporting.console_table import format_recall_table


def find_line(table: str, name: str) -> list[str]:
    return (
        next(line for line in table.splitlines() if line.startswith(name)).replace("[", " ").replace("]", " ").split()
    )


def test_both_directions_intervals_and_chance_are_shown(evaluation: dict[str, Any]) -> None:
    table = format_recall_table(evaluation)
    there, back = evaluation["directions"]["music_to_video"], evaluation["directions"]["video_to_music"]
    expected = []
    for figure in (there["recall"]["5"], back["recall"]["5"]):
        expected += [f"{100 * figure['value']:.1f}", f"{100 * figure['low']:.1f},", f"{100 * figure['high']:.1f}"]
    assert find_line(table, "R@5 ") == ["R@5", *expected, "10.0"]
    assert find_line(table, "MRR")[1] == f"{there['mrr']['value']:.3f}"
    assert find_line(table, "median rank")[-1] == "25.0"
    assert "recall_xy" in table
    assert "pool of 50" in table


def test_it_fits_100_columns_and_columns_line_up(evaluation: dict[str, Any]) -> None:
    table = format_recall_table(evaluation | {"warnings": ["word " * 60]})
    lines = table.splitlines()
    assert max(map(len, lines)) <= 100
    figures = [line for line in lines if line.startswith(("R@", "MRR", "median rank"))]
    assert len(figures) == 7  # of ks up to the pool, 50 and 100 are left out
    assert len({len(line) for line in figures}) == 1
    assert len({line.index("[") for line in figures}) == 1


def test_cut_offs_that_reach_the_pool_are_left_out_in_one_line(evaluation: dict[str, Any]) -> None:
    table = format_recall_table(evaluation)
    assert "R@25 " in table
    assert "Left out, 100 % by definition in a pool of 50: R@50" in table
    assert not [line for line in table.splitlines() if line.startswith("R@50")]
    assert "Left out" not in format_recall_table(evaluate_noisy_pairs(ks=(1, 5)).to_dict())


def test_the_table_begins_with_the_verdict(evaluation: dict[str, Any]) -> None:
    table = format_recall_table(evaluation)
    assert table.startswith("Better than chance in both directions (95 % level): R@10 is ")
    assert max(map(len, table.splitlines())) <= 100


def test_pools_dropped_items_and_warnings_are_told() -> None:
    table = format_recall_table(evaluate_noisy_pairs(pool_size=20, shuffle_pairs=True).to_dict())
    assert "2 pools of 20" in table
    assert "10 items did not fill a pool" in table
    assert "Warning: Pairs were mismatched on purpose" in table


def test_mean_average_precision_shows_only_with_several_positives(evaluation: dict[str, Any]) -> None:
    assert "mAP" not in format_recall_table(evaluation)
    several = evaluate_noisy_pairs(positives="group").to_dict()
    assert find_line(format_recall_table(several), "mAP")[-1] == "-"


def test_without_intervals_columns_still_line_up() -> None:
    evaluation = evaluate_noisy_pairs(n=2).to_dict()  # one group: nothing to resample
    line = next(line for line in format_recall_table(evaluation).splitlines() if line.startswith("R@1 "))
    assert "[" not in line
    assert len(line) == len(format_recall_table(evaluate_noisy_pairs().to_dict()).splitlines()[8])


def test_one_line_tells_pools_and_hubs(evaluation: dict[str, Any]) -> None:
    there, back = (figures["hubness"] for figures in evaluation["directions"].values())
    expected = f"Hubs: up to {there['max']:.0f} / {back['max']:.0f} times in a top 10; "
    assert expected in format_recall_table(evaluation)
    assert "Pools of" not in format_recall_table(evaluation)
    pooled = evaluate_noisy_pairs(n=60, pool_sizes=(40, 20)).to_dict()
    pools = [figures["pools"]["20"]["recall"]["10"]["value"] for figures in pooled["directions"].values()]
    (line,) = [line for line in format_recall_table(pooled).splitlines() if "Hubs: " in line]
    assert line.startswith(f"Pools of 20: R@10 {100 * pools[0]:.1f} / {100 * pools[1]:.1f} %. Hubs: up to ")


def test_a_correction_of_hubs_is_told(evaluation: dict[str, Any]) -> None:
    assert "CSLS" not in format_recall_table(evaluation)
    assert "CSLS over 10 neighbours" in format_recall_table(evaluate_noisy_pairs(similarity="csls").to_dict())


def test_files_of_earlier_versions_are_shown_without_what_they_lack(evaluation: dict[str, Any]) -> None:
    full = format_recall_table(evaluation)
    older = format_recall_table(drop_new_figures(evaluation))
    assert [line for line in full.splitlines() if not line.startswith("Hubs")] == older.splitlines()
