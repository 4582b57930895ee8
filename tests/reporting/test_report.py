from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import pytest

from report_page import Page
from sample_evaluation import drop_new_figures, evaluate_noisy_pairs
from vmnet_pipeline.reporting.plots import plot_ranks, plot_recall, plot_training
from vmnet_pipeline.reporting.report import Leaf, build_report, encode_png, flatten_tree

if TYPE_CHECKING:
    from vmnet_pipeline.evaluation.evaluate import Evaluation


@pytest.fixture
def run_info() -> dict[str, Any]:
    return {
        "title": "VM-NET on demo",
        "collection": "demo",
        "variant": "musicnn + efficientnet",
        "date": "2026-01-02 03:04 UTC",
        "git_revision": "abcdef0",
        "best_epoch": 6,
        "command": ["kedro demo-media", "kedro run"],
        "versions": {"torch": "2.13.0"},
        "ingest": {"n_items": 12000, "n_failed": 2, "failures_by_reason": {"no_audio_stream": 2}},
        "split": {"sizes": {"train": 119, "val": 29, "test": 50}, "checksum": "c0ffee", "doubts": []},
        "extraction": {
            "musicnn": {"n_done": 198, "failed_items": [{"id": "007", "reason": "short", "error": "too short"}]}
        },
        "params": {"train": {"learning_rate": 3e-4, "loss": {"top_k": None}}, "evaluate": {"ks": [1, 5]}},
    }


@pytest.fixture
def full_report(
    measured: Evaluation, evaluation: dict[str, Any], history: list[dict[str, Any]], run_info: dict[str, Any]
) -> str:
    plots = {
        "recall": plot_recall(evaluation),
        "ranks": plot_ranks(evaluation, measured.query_rows),
        "training": plot_training(history, 6),
    }
    return build_report(evaluation, measured.query_rows, history, plots, run_info)


def test_report_holds_everything_it_was_given(full_report: str, evaluation: dict[str, Any]) -> None:
    page = Page(full_report)
    assert page.open == []
    text = " ".join(page.text.split())
    recall = evaluation["directions"]["music_to_video"]["recall"]["10"]
    assert f"Recall@10 {100 * recall['value']:.1f} % {100 * recall['low']:.1f} to {100 * recall['high']:.1f}" in text
    for part in (
        "VM-NET on demo",
        "abcdef0",
        "2026-01-02",
        "pool of 50",
        "recall_yx",
        "Median rank",
        "chance",
    ):
        assert part in text
    for part in ("items 12,000", "no audio stream 2", "007 short · too short", "learning_rate 0.0003", "top_k none"):
        assert part in text
    for part in (
        "c0ffee",
        "8 epochs, last loss 0.125, weights of epoch 6 kept, 4.0 s.",
        "kedro demo-media",
        "torch 2.13.0",
    ):
        assert part in text


def test_report_needs_nothing_from_outside(full_report: str) -> None:
    for tag, attributes in Page(full_report).tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in full_report
    assert "@import" not in full_report
    assert "http" not in full_report


def test_pictures_are_whole_png_files_with_a_description(full_report: str) -> None:
    images = [attributes for tag, attributes in Page(full_report).tags if tag == "img"]
    assert len(images) == 3
    for attributes in images:
        content = base64.b64decode((attributes["src"] or "").removeprefix("data:image/png;base64,"), validate=True)
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        assert len(attributes["alt"] or "") > 20


def test_same_figure_gives_same_bytes(evaluation: dict[str, Any]) -> None:
    assert encode_png(plot_recall(evaluation)) == encode_png(plot_recall(evaluation))
    assert encode_png(b"abc") == "data:image/png;base64,YWJj"


HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def test_hostile_text_is_escaped_wherever_it_comes_from(history: list[dict[str, Any]]) -> None:
    measured = evaluate_noisy_pairs(n=6, ids=[f"{HOSTILE}{i}" for i in range(6)])
    keys = ("title", "collection", "variant", "date", "git_revision", "command")
    info: dict[str, Any] = dict.fromkeys(keys, HOSTILE)
    info |= {part: {HOSTILE: {HOSTILE: [HOSTILE]}} for part in ("versions", "ingest", "split", "params", "checkpoint")}
    info["extraction"] = {HOSTILE: {"failed_items": [{"id": HOSTILE, "error": HOSTILE}]}}
    evaluation = measured.to_dict() | {"warnings": [HOSTILE]}
    html = build_report(evaluation, measured.query_rows, history, {HOSTILE: b"png"}, info)
    assert "<script" not in html
    assert "<img src=x" not in html
    page = Page(html)
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert page.text.count("alert('x')") > 30


def test_what_is_absent_is_left_out(evaluation: dict[str, Any], measured: Evaluation) -> None:
    def headings(html: str) -> list[str]:
        return re.findall(r"<h2>(.*?)</h2>", html)

    assert headings(build_report()) == []
    assert headings(build_report(evaluation)) == ["Results"]
    assert headings(build_report(ranks=measured.query_rows)) == ["Best and worst queries"]
    assert headings(build_report(history=[{"epoch": 1}])) == ["Training"]
    assert headings(build_report(run_info={"params": {}, "ingest": {}, "extraction": {}, "versions": {"a": "1"}})) == [
        "Versions"
    ]
    assert Page(build_report()).open == []


def test_best_and_worst_queries_are_apart_and_in_order(measured: Evaluation) -> None:
    html = build_report(ranks=measured.query_rows)
    tables = re.findall(r"<h3>(.*?)</h3>.*?<tbody>(.*?)</tbody>", html, flags=re.DOTALL)
    assert [title for title, _ in tables] == [
        f"{kind} queries, {way}" for way in ("music → video", "video → music") for kind in ("Best", "Worst")
    ]
    rows = [re.findall(r"<td>([\d.]+)</td><td>(\d+)</td>", body) for _, body in tables]
    best, worst = ([float(rank) for rank, _ in part] for part in rows[:2])
    ranks = sorted(row["rank"] for row in measured.query_rows if row["direction"] == "music_to_video")
    assert best == ranks[:5]
    assert worst == ranks[::-1][:5]
    few = build_report(ranks=[row for row in measured.query_rows if row["id"] in ("000", "001", "002")])
    shown = re.findall(r"<td>[\d.]+</td><td>(\d+)</td>", few)
    assert len(shown) == 4
    assert len(set(shown[:2])) == len(set(shown[2:])) == 2


def test_rows_that_went_through_a_table_are_taken(measured: Evaluation) -> None:
    import pandas as pd

    rows = pd.DataFrame(measured.query_rows).to_dict("records")
    assert build_report(ranks=rows) == build_report(ranks=measured.query_rows)


def test_trees_are_laid_out_with_depth() -> None:
    tree = {"a": {"b": {"c": 1.5}, "empty": {}}, "flag": True, "nothing": None, "many": list(range(40)), "n_bad": 0}
    assert flatten_tree(tree)[:5] == [
        Leaf(0, "a", None),
        Leaf(1, "b", None),
        Leaf(2, "c", "1.5"),
        Leaf(0, "flag", "yes"),
        Leaf(0, "nothing", "none"),
    ]
    assert flatten_tree(tree)[5].value.endswith("19, … (40)")  # type: ignore[union-attr]
    assert flatten_tree(tree, plain=True)[-1] == Leaf(0, "bad", "0")
    records = flatten_tree({"items": [{"id": str(i), "why": "x"} for i in range(25)]})
    assert records[1] == Leaf(1, "0", "x")
    assert records[-1].label == "… and 5 more"


def test_pools_and_warnings_are_told() -> None:
    text = " ".join(Page(build_report(evaluate_noisy_pairs(pool_size=20, shuffle_pairs=True).to_dict())).text.split())
    assert "2 pools of 20" in text
    assert "10 items did not fill a pool" in text
    assert "mismatched on purpose" in text
    several = build_report(evaluate_noisy_pairs(positives="group").to_dict())
    assert "Mean average precision" in several
    assert "nDCG at 10" in several


def test_random_pools_and_hubs_have_tables_of_their_own() -> None:
    evaluation = evaluate_noisy_pairs(n=60, pool_sizes=(20, 40)).to_dict()
    text = " ".join(Page(build_report(evaluation)).text.split())
    for name, figures in evaluation["directions"].items():
        recall, hubs = figures["pools"]["40"]["recall"]["5"], figures["hubness"]
        for part in (f"{100 * recall['value']:.1f} %", f"{100 * recall['low']:.1f} to {100 * recall['high']:.1f}"):
            assert part in text, name
        assert f"{hubs['skewness']:z.2f}" in text
    assert "Recall@5 in 40" in text
    assert "Median rank in 20" in text
    assert "Recall@20 in 20" not in text


def test_files_of_earlier_versions_give_a_page(evaluation: dict[str, Any]) -> None:
    html = build_report(drop_new_figures(evaluation))
    assert Page(html).open == []
    assert "Random pools" not in html
    assert "Hubs" not in html
    assert "Hubs" in build_report(evaluation)
    several = evaluate_noisy_pairs(positives="group").to_dict()
    assert "nDCG" not in build_report(drop_new_figures(several))
