"""What the report gathers: comparisons that may be made, settings that were used, media that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from report_page import Page
from sample_evaluation import evaluate_noisy_pairs
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.evaluation.evaluate import Evaluation
from vmnet_pipeline.experiments.rank_comparison import compare_ranks
from vmnet_pipeline.models.checkpoints import Checkpoint, digest_checkpoint
from vmnet_pipeline.pairs.packing import PairFiles
from vmnet_pipeline.pipelines.evaluate.report_inputs import (
    NO_MEDIA,
    Evidence,
    describe_run,
    find_comparisons,
    report_evaluation,
)
from vmnet_pipeline.types import Fingerprint

N = 50


@pytest.fixture
def evidence(measured: Evaluation) -> Evidence:
    ids = tuple(f"{i:03d}" for i in range(N))
    pairs = PairFiles(
        ids=(*(f"train {i}" for i in range(6)), *ids),
        groups=("one",) * 6 + tuple(f"song {i // 2}" for i in range(N)),
        music=np.zeros((6 + N, 2), np.float32),
        video=np.zeros((6 + N, 2), np.float32),
        sizes={"train": 6, "val": 0, "test": N},
        split_checksum="sha256:split",
    )
    checkpoint = Checkpoint(
        {"music_tower": "musicnn"},
        {"weight": torch.ones(2)},
        {"audio": Fingerprint("musicnn"), "video": Fingerprint("efficientnet")},
        params={"epochs": 77, "seed": 5},
        best_epoch=3,
        git_revision="abcdef0",
        versions={"torch": "1.0"},
    )
    settings = {
        "ingest": {"media_dir": "data/my"},
        "split": {"seed": 4},
        "reference": {"pairs_dir": None, "variant": None},
        "train": {"epochs": 1},
        "musicnn": {"weights": "pretrained"},
        "vggish": {"weights": "pretrained"},
        "tune": {"n_trials": 3},
    }
    return Evidence(measured.to_dict(), measured.query_rows, [], checkpoint, pairs, settings)


def make_measured(**changes: Any) -> dict[str, Any]:
    return {"variant": "vmnet_musicnn", "comparison": None, "variants": {}} | changes


def as_results(evaluation: Evaluation) -> dict[str, Any]:
    return {"evaluation": evaluation.to_dict(), "query_rows": evaluation.query_rows}


def test_variants_are_compared_where_they_were_measured_alike(evidence: Evidence) -> None:
    variants = {
        "vmnet_vggish": as_results(evaluate_noisy_pairs(similarity="cosine")),
        "csls": as_results(evaluate_noisy_pairs(similarity="csls")),
        "mismatched": as_results(evaluate_noisy_pairs(shuffle_pairs=True)),
        "other_pairs": as_results(evaluate_noisy_pairs(ids=[f"x{i}" for i in range(N)])),
    }
    (found,), notes = find_comparisons(evidence, make_measured(variants=variants))
    assert [row["name"] for row in found.results["rows"]] == ["vmnet_musicnn", "vmnet_vggish"]
    assert notes == ["Evaluated on other test pairs or by another protocol, not shown: csls, mismatched, other_pairs."]
    assert find_comparisons(evidence, make_measured()) == ([], [])


def test_a_comparison_counts_only_on_the_same_split(evidence: Evidence) -> None:
    comparison = compare_ranks({"a": evidence.query_rows, "b": evidence.query_rows}, n_resamples=10)
    (found,), notes = find_comparisons(
        evidence, make_measured(comparison=comparison | {"split_checksum": "sha256:split"})
    )
    assert (found.name, notes) == ("comparison", [])
    for other in (comparison, comparison | {"split_checksum": "sha256:other"}):
        comparisons, (note,) = find_comparisons(evidence, make_measured(comparison=other))
        assert comparisons == []
        assert "another split" in note


def test_settings_are_those_that_the_figures_depend_on(evidence: Evidence) -> None:
    run = describe_run(evidence)
    assert run["params"]["train"] == {"epochs": 77, "seed": 5}  # of the training, not of this run
    assert set(run["params"]) == {"ingest", "split", "train", "musicnn"}
    assert run["params"]["split"]["test_share"] > 0  # a default of a step that this run does not have
    assert run["collection"] == "data/my"
    assert run["identity"]["network"] == f"sha256:{digest_checkpoint(evidence.checkpoint)}"
    assert run["identity"]["split"] == "sha256:split"
    assert run["identity"]["seed"] == {"split": 4, "train": 5}
    assert {"python", "system", "torch"} <= set(run["versions"]["evaluated with"])
    wrong = replace(evidence, settings={**evidence.settings, "split": {"train_share": 9}})
    assert describe_run(wrong)["params"]["split"] == {"train_share": 9}


def test_feature_files_of_ones_own_have_no_media(evidence: Evidence) -> None:
    settings = {**evidence.settings, "reference": {"pairs_dir": "/old", "variant": "vmnet_musicnn"}}
    page = Page(report_evaluation(replace(evidence, settings=settings), {}, make_measured(), []))
    assert NO_MEDIA in page.words
    assert "train 6 1" in page.words
    assert not any(tag == "audio" for tag, _ in page.tags)
    assert "/old" in page.words
    assert "data/my" not in page.words


def test_the_gain_of_reranking_reaches_the_page(evidence: Evidence) -> None:
    figure = {"without": 0.4, "with": 0.5, "difference": 0.1, "low": 0.02, "high": 0.2}
    gain = {
        "n_candidates": 9,
        "piece_s": 3.0,
        "weight": 0.3,
        "n_items": N,
        "directions": {"music_to_video": {"mrr": figure}},
    }
    assert "re-ranking is a gain" in report_evaluation(replace(evidence, reranking=gain), {}, make_measured(), [])
    assert "e-ranking" not in report_evaluation(evidence, {}, make_measured(), [])


@pytest.mark.long
def test_media_that_are_gone_do_not_stop_the_report(evidence: Evidence, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", duration_s=1.0, width=64, height=48)
    ids = [item_id for item_id in evidence.pairs.ids if not item_id.startswith("train")]
    manifest = pd.DataFrame({"id": ids, "status": "ok"}).assign(
        audio_path=str(clip), video_path=[str(clip) if i % 2 else str(tmp_path / "gone.mp4") for i in range(N)]
    )
    manifest = manifest.assign(audio_duration_s=1.0, video_duration_s=np.nan)
    page = Page(report_evaluation(replace(evidence, manifest=manifest), {}, make_measured(), []))
    assert page.open == []
    kinds = [attributes["src"].partition(";")[0] for _, attributes in page.tags if attributes.get("src")]
    assert kinds.count("data:audio/mpeg") == 50
    assert 0 < kinds.count("data:image/jpeg") < 50
    assert kinds.count("data:image/png") == 1  # the lengths
    assert "test 50 25 0.01 1.0 1.0 1.0" in page.words
    none = manifest.assign(audio_path="", video_path="")
    assert "can no longer be read" in report_evaluation(replace(evidence, manifest=none), {}, make_measured(), [])
