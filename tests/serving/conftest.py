"""A tiny collection of real clips, embedded with random weights, and a running service of it."""

from __future__ import annotations

import time

import httpx
import numpy as np
import pandas as pd
import pytest
from serving_collection import make_checkpoint, run_live, write_side

COUNT = 6


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    from vmnet_pipeline import Embedder
    from vmnet_pipeline.ingestion.collect import find_items
    from vmnet_pipeline.ingestion.manifest import build_manifest
    from vmnet_pipeline.media.probe import probe_media
    from vmnet_pipeline.media.synthesis import DemoSpec, make_demo_collection
    from vmnet_pipeline.serving.settings import CollectionPlaces

    folder = tmp_path_factory.mktemp("served")
    media = make_demo_collection(folder / "media", DemoSpec(COUNT, min_duration_s=3, max_duration_s=4), n_workers=1)
    root = media if media.is_dir() else media.parent
    manifest = build_manifest(find_items(root), probe_media)
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    make_checkpoint(folder / "checkpoint", folder)
    embedder = Embedder.load(folder / "checkpoint", weights_dir=folder)
    items = pd.DataFrame(
        {
            "id": manifest["id"],
            "title": "Clip " + manifest["id"],
            "tags": ["rock, jazz" if place % 2 else "ambient" for place in range(len(manifest))],
            "duration_s": manifest["audio_duration_s"],
        }
    )
    for side, column, embed in (
        ("music", "audio_path", embedder.embed_music),
        ("video", "video_path", embedder.embed_video),
    ):
        vectors = np.concatenate([embed(path) for path in manifest[column]])
        write_side(folder / "output", side, vectors, items, embedder.digest)
    return CollectionPlaces(folder / "output", folder / "checkpoint", folder / "manifest.parquet", folder, (root,))


@pytest.fixture(scope="session")
def service(places):
    from vmnet_pipeline.serving.service import Service
    from vmnet_pipeline.serving.settings import ServeParams

    return Service(
        places, ServeParams(max_upload_mb=4, max_json_mb=1, max_duration_s=30, max_waiting=3, reload_every_s=0.05)
    )


@pytest.fixture(scope="session")
def live(service):
    """Address of the running service, its networks loaded."""
    with run_live(service) as address:
        deadline = time.monotonic() + 120
        while not service.is_ready and time.monotonic() < deadline:
            assert not service.state.pool.failure, service.state.pool.failure
            time.sleep(0.05)
        yield address


@pytest.fixture
def client(live):
    with httpx.Client(base_url=live, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def manifest(places):
    return pd.read_parquet(places.manifest).set_index("id")
