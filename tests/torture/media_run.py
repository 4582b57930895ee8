"""Ingest and extract the hostile collections with the project's own nodes: `media_run.py FOLDER`.

A process of its own, so that a crash of the run is seen as one. Writes `outcomes.json`: what became of each item, as
[collection, id or path, end], where the end is `features`, or the reason of the row.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.extraction.planning import list_media_items
from vmnet_pipeline.features.store import FeatureStore
from vmnet_pipeline.params import ExtractParams, IngestParams
from vmnet_pipeline.pipelines.extract.nodes import check_complete, extract_features, plan_missing
from vmnet_pipeline.pipelines.ingest.nodes import ingest_media

LIMITS = {"seconds": 60.0, "memory_mb": 2048}
BACKENDS = ("musicnn", "efficientnet")


def main() -> None:
    logging.basicConfig(level=logging.WARNING, filename=Path(sys.argv[1]) / "log.txt")
    folder = Path(sys.argv[1])
    outcomes = [
        (name, *outcome)
        for name in ("listed", "named")
        if (folder / name).exists()
        for outcome in run_collection(folder / name, folder / f"{name}.data")
    ]
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


def run_collection(media: Path, data: Path) -> list[tuple[str, str, str]]:
    """(id, path, end) of every item."""
    params = IngestParams(media_dir=str(media), limits=LIMITS)
    manifest, _ = ingest_media(params, data / "cache")
    failures: dict[str, str] = {}
    for name in BACKENDS:
        failures |= extract(name, manifest, data)
    ends = []
    for row in manifest.itertuples():
        end = row.reason if row.status != "ok" else failures.get(row.id, "features")
        words = row.error or row.status == "ok"
        ends.append((row.id, row.video_path or row.audio_path, end if end and words else "no reason"))
    return ends


def extract(name: str, manifest: Any, data: Path) -> dict[str, str]:
    """Reasons of the items that have no feature; a feature that cannot be read, or is missing, counts as lost."""
    import numpy as np

    store, params = FeatureStore(data / name), ExtractParams(limits=LIMITS, max_failed_share=1.0)
    backend_params = {"backend": name, "weights": "random", "weights_dir": data.parent / "weights"}
    missing = plan_missing(manifest, store, backend_params, params)
    extract_features(missing, store, backend_params, params)
    check_complete(manifest, FeatureStore(store.folder), backend_params, params)
    rows, failures = FeatureStore(store.folder).rows, {}
    known = dict(rows.items())
    for item in list_media_items(manifest, make_backend(backend_params).modality):
        row = known.get(item.id)
        if row is None:
            failures[item.id] = "lost"
        elif row.status == "failed":
            failures[item.id] = row.reason if row.error else "no reason"
        elif not np.isfinite(np.load(store.file_of(item.id))).all():
            failures[item.id] = "lost"
    return failures


if __name__ == "__main__":
    main()
