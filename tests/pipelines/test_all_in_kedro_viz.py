"""What Kedro-Viz draws: layers that follow one another, steps that say what they do, tables with a preview."""

from __future__ import annotations

import inspect
import json
import runpy
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from vmnet_pipeline.datasets import FeatureStoreDataset, IdListDataset, MediaManifestDataset, TrainingHistoryDataset
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow
from vmnet_pipeline.params import VARIANTS, IngestParams
from vmnet_pipeline.pipeline_registry import register_pipelines, register_reference_pipelines
from vmnet_pipeline.pipelines.ingest.nodes import ingest_media
from vmnet_pipeline.types import Fingerprint

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def layers() -> dict[str, str]:
    """Layer of every entry of the catalog, by its name with placeholders."""
    catalog = runpy.run_path(str(DOCS / "make_datasets.py"))["read_catalog"]()
    return {name: entry["metadata"]["kedro-viz"]["layer"] for name, entry in catalog.items()}


def find_steps():
    pipelines = [register_pipelines(), *(register_reference_pipelines(variant) for variant in VARIANTS)]
    return {step.name: step for some in pipelines for pipeline in some.values() for step in pipeline.nodes}.values()


def find_layer(dataset: str, layers: dict[str, str]) -> str:
    space, _, name = dataset.rpartition(".")
    kind = "{variant}." if space in VARIANTS else "{backend}."
    return layers[kind + name if space else name]


def test_layers_follow_one_another(layers):
    """Otherwise Kedro-Viz shows none of them."""
    graph: dict[str, set[str]] = {}
    for step in find_steps():
        before = {find_layer(name, layers) for name in step.inputs if not name.startswith("param")}
        for name in step.outputs:
            layer = find_layer(name, layers)
            graph.setdefault(layer, set()).update(before - {layer})
    assert len(list(TopologicalSorter(graph).static_order())) >= 6  # raises where they are a circle


@pytest.mark.parametrize("step", find_steps(), ids=lambda step: step.name)
def test_every_step_says_what_it_does(step):
    assert len((inspect.getdoc(step.func) or "").split()) >= 3


def preview(dataset):
    """What Kedro-Viz asks for: a table, known by the name of its type."""
    assert inspect.signature(dataset.preview).return_annotation == "TablePreview"
    return json.loads(json.dumps(dataset.preview(nrows=2)))


@pytest.mark.process
def test_tables_have_a_preview(tmp_path):
    folder = tmp_path / "media"
    make_clip(folder / "007.mp4", duration_s=1.0, width=32, height=32)
    (folder / "008.mp4").write_bytes(b"no film")
    manifest = MediaManifestDataset(filepath=str(tmp_path / "manifest.parquet"))
    assert preview(manifest) == {}
    manifest.save(ingest_media(IngestParams(media_dir=str(folder)), tmp_path / "cache")[0])
    rows = preview(manifest)["data"]
    assert [row[:3] for row in rows] == [["007", "ok", ""], ["008", "failed", "unknown_format"]]

    ids = IdListDataset(filepath=str(tmp_path / "train.csv"))
    assert preview(ids) == {}
    ids.save(("007", "8", "9"))
    assert preview(ids)["data"] == [["007"], ["8"]]

    history = TrainingHistoryDataset(filepath=str(tmp_path / "history.json"))
    history.save([{"epoch": k, "validation": {"mrr": 0.5} if k > 1 else None} for k in (1, 2, 3)])
    assert [row[0] for row in preview(history)["data"]] == [2, 3]

    store = FeatureStoreDataset(filepath=str(tmp_path / "store"))
    assert preview(store)["data"] == []
    store.save(
        FeatureChunk(
            Fingerprint("toy"), (FeatureResult(FeatureRow("007", "done", "sha256:00"), np.zeros(3, np.float32)),)
        )
    )
    assert preview(store)["data"][0][:3] == ["007", "done", [3]]
