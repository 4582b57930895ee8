"""The parts of the report about variants, queries, data and work."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from report_page import Page
from sample_evaluation import evaluate_noisy_pairs
from vmnet_pipeline.experiments.rank_comparison import compare_ranks
from vmnet_pipeline.reporting.metric_tables import Comparison
from vmnet_pipeline.reporting.plots import plot_durations
from vmnet_pipeline.reporting.query_examples import choose_queries, list_shown
from vmnet_pipeline.reporting.report import build_report

if TYPE_CHECKING:
    from vmnet_pipeline.evaluation.evaluate import Evaluation


def list_sources(html: str, tag: str) -> list[str]:
    return [attributes["src"] or "" for name, attributes in Page(html).tags if name == tag]


def test_queries_are_shown_with_picture_and_sound_and_those_without_by_id(measured: Evaluation) -> None:
    tables = choose_queries(measured.query_rows)
    shown = list_shown(tables)
    assert len(shown) == len(set(shown))
    missing = ("audio", tables[0].queries[0].id)
    previews = {key: f"{key[0]} of {key[1]}".encode() for key in shown if key != missing}
    html = build_report(ranks=measured.query_rows, previews=previews)
    page = Page(html)
    assert page.open == []
    # music -> video: a sound and pictures of the relevant item and of three results; video -> music the other way round
    heard = [item for table in tables[2:] for query in table.queries for item in (query.id, *query.results)]
    assert len(list_sources(html, "audio")) == 10 - 1 + 10 * 4 - heard.count(missing[1])
    assert len(list_sources(html, "img")) == 10 * 4 + 10
    content = base64.b64decode(list_sources(html, "audio")[0].removeprefix("data:audio/mpeg;base64,"))
    assert content == f"audio of {tables[0].queries[1].id}".encode()
    assert all(source.startswith("data:image/jpeg;base64,") for source in list_sources(html, "img"))
    assert missing[1] in page.words
    assert "autoplay" not in html


def test_without_media_queries_are_a_plain_list_that_says_why(measured: Evaluation) -> None:
    html = build_report(ranks=measured.query_rows, run_info={"media_note": "There are no media."})
    assert not list_sources(html, "audio")
    assert "There are no media." in Page(html).words
    assert "There are no media." not in build_report(ranks=[], run_info={"media_note": "There are no media."})


def test_variants_stand_side_by_side_with_paired_differences() -> None:
    good, bad = (evaluate_noisy_pairs(n=40).query_rows for _ in range(2))
    worse = [row | {"rank": min(row["rank"] + 3, 40.0)} for row in bad]
    figures = compare_ranks({"one": good, "two": worse})
    html = build_report(comparisons=[Comparison("variants", "Side by side", figures)], plots={"variants": b"png"})
    page = Page(html)
    assert page.open == []
    difference = figures["rows"][1]["difference"]["both/mrr"]
    assert difference["high"] < 0
    for part in ("Side by side", "Less one, query by query", f"{difference['value']:+.3f}"):
        assert part in page.words
    assert f"{difference['low']:+.3f} to {difference['high']:+.3f}" in page.words
    recall = figures["rows"][1]["figures"]["video_to_music/recall_at_5"]
    assert f"{100 * recall['value']:.1f} {100 * recall['low']:.1f} to {100 * recall['high']:.1f}" in page.words
    assert "Plots" not in page.words  # the one that there is stands with the variants
    assert len(list_sources(html, "img")) == 1


def make_reranking(music: tuple[Any, ...], video: tuple[Any, ...], **changes: Any) -> dict[str, Any]:
    """As `reranking.json` has it; per direction difference, low and high of the mean reciprocal rank."""
    directions = {
        name: {
            "mrr": {"without": 0.4, "with": 0.4 + mrr[0], "difference": mrr[0], "low": mrr[1], "high": mrr[2]},
            "recall_at_5": {"without": 0.5, "with": 0.625, "difference": 0.125, "low": -0.05, "high": 0.25},
        }
        for name, mrr in {"music_to_video": music, "video_to_music": video}.items()
    }
    how = {"n_candidates": 50, "piece_s": 2.5, "weight": 0.3, "n_items": 1234}
    return how | {"directions": directions} | changes


def test_the_gain_of_reranking_stands_in_a_table_per_direction(evaluation: dict[str, Any]) -> None:
    page = Page(build_report(evaluation, reranking=make_reranking((0.1, 0.02, 0.2), (-0.03, -0.06, 0.01))))
    assert page.open == []
    rank = "Mean reciprocal rank 0.400 0.500 +0.100 +0.020 to +0.200"
    recall = "Recall@5 50.0 % 62.5 % +12.5 -5.0 to +25.0"
    assert f"music → video Without With Difference 95 % interval, paired {recall} {rank}" in page.words
    assert "Mean reciprocal rank 0.400 0.370 -0.030 -0.060 to +0.010" in page.words
    for part in ("The 50 best results", "in pieces of 2.5 s", "in the score, 0.3,", "1,234 test pairs"):
        assert part in page.words


GAIN, LOSS, CHANCE, UNKNOWN = (0.1, 0.02, 0.2), (-0.1, -0.2, -0.02), (0.1, -0.1, 0.3), (0.1, None, None)


@pytest.mark.parametrize(
    ("music", "video", "meaning"),
    [
        (GAIN, GAIN, "re-ranking is a gain in both directions."),
        (LOSS, CHANCE, "re-ranking is a loss for music → video and no difference beyond chance for video → music."),
        (UNKNOWN, UNKNOWN, "re-ranking is a difference of unknown certainty in both directions."),
    ],
)
def test_one_sentence_says_what_reranking_means(music: Any, video: Any, meaning: str) -> None:
    assert meaning in Page(build_report(reranking=make_reranking(music, video))).words
    nothing = Page(build_report(reranking=make_reranking(music, video, weight=0.0))).words
    assert "leave re-ranking out" in nothing
    assert meaning not in nothing


@pytest.mark.parametrize("reranking", [None, {"n_candidates": 0}])
def test_there_is_no_section_without_reranking(evaluation: dict[str, Any], reranking: dict[str, Any] | None) -> None:
    assert "e-ranking" not in build_report(evaluation, reranking=reranking)


def make_stage(name: str, **changes: Any) -> dict[str, Any]:
    stage = {"name": name, "seconds": 1234.5, "memory_bytes": 512 * 2**20, "workers_bytes": 0, "last_s": 0.5}
    return stage | {"n_runs": 3, "command": "kedro run", "ended": "2026-01-02T03:04:05+00:00"} | changes


def test_stages_tell_time_memory_and_the_commands_each_once() -> None:
    stages = [make_stage("a"), make_stage("b"), make_stage("c", command="kedro run --pipelines=compare")]
    stages.append(make_stage("variant.write_report", command="kedro run --pipelines=evaluate"))
    page = Page(build_report(run_info={"stages": stages}))
    assert "a 1,234.5 512 0.5 3 2026-01-02 03:04" in page.words
    assert "its workers" not in page.words
    assert page.words.endswith("How to reproduce kedro run kedro run --pipelines=compare")
    several = Page(build_report(run_info={"stages": [make_stage("a", workers_bytes=2**30)], "command": "make demo"}))
    assert "a 1,234.5 512 1,024 0.5 3" in several.words
    assert several.words.endswith("How to reproduce make demo")


def test_the_split_has_sizes_and_lengths_and_failures_have_examples() -> None:
    train = {"n_items": 1200, "n_groups": 30, "audio_hours": 1.5, "shortest_s": 2.0, "median_s": 3.25, "longest_s": 4.0}
    info = {
        "sides": {"train": train, "test": {"n_items": 0, "n_groups": 0}},
        "ingest": {
            "failures_by_reason": {"no_audio_stream": 7},
            "failed_items": [
                {"id": "x", "reason": "other", "error": "?"},
                {"id": "y", "reason": "no_audio_stream", "error": "silent"},
            ],
        },
        "extraction": {"music": {"failures_by_reason": {}}},
    }
    page = Page(build_report(run_info=info))
    assert "train 1,200 30 1.50 2.0 3.2 4.0 test 0 0" in page.words
    assert "Ingested no audio stream 7 y: silent" in page.words
    assert "No item failed." not in page.words
    nothing = build_report(run_info={"ingest": {"failures_by_reason": {}, "n_items": 3}})
    assert "No item failed." in nothing
    without_lengths = Page(build_report(run_info={"sides": {"train": {"n_items": 5, "n_groups": 4}}}))
    assert "hours" not in without_lengths.words
    assert "train 5 4" in without_lengths.words


def test_settings_and_versions_are_tables_per_part() -> None:
    info = {"params": {"seed": 3, "train": {"epochs": 5}, "empty": {}}, "identity": {"split": "sha256:abc"}}
    page = Page(build_report(run_info=info | {"versions": {"torch": "2.0", "trained with": {"torch": "1.0"}}}))
    assert "Settings seed 3 train epochs 5 Versions torch 2.0 trained with torch 1.0" in page.words
    assert page.words.endswith("How to reproduce split sha256:abc")


@pytest.mark.parametrize("lengths", [[], [float("nan")], [3.0], list(np.linspace(1, 9, 100))])
def test_every_known_length_is_in_the_plot(lengths: list[float]) -> None:
    figure = plot_durations({"sound": lengths, "picture": lengths})
    known = int(np.isfinite(lengths).sum())
    for axes, name in zip(figure.axes, ("sound", "picture"), strict=True):
        assert sum(bar.get_height() for bar in axes.patches) == known
        assert axes.get_xlabel() == f"length of the {name} (s)"
        assert axes.get_title(loc="left") == f"{name}, {known} items"
