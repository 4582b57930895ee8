"""Builds what the service serves: a checkpoint with random weights, one side of a gallery; and serves it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from pathlib import Path

MUSIC = {"backend": "musicnn", "weights": "random", "max_duration_s": 4.0, "engine": "torch", "precision": "f32"}
VIDEO = {"backend": "efficientnet", "weights": "random", "max_duration_s": 2.0, "engine": "torch", "precision": "f32"}


def make_checkpoint(folder, weights_dir, seed=1):
    import torch

    from vmnet_pipeline.backends.registry import make_backend
    from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
    from vmnet_pipeline.models.factory import build_model

    config = {
        "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [200], "video_shape": [1280],
        "embedding_dim": 8, "dropout": 0.1, "standardise": True,
    }  # fmt: skip
    torch.manual_seed(seed)
    tensors = {name: tensor.clone() for name, tensor in build_model(**config).state_dict().items()}
    backends = {"audio": MUSIC, "video": VIDEO}
    fingerprints = {
        name: make_backend({"weights_dir": weights_dir, **params}).fingerprint() for name, params in backends.items()
    }
    save_checkpoint(folder, Checkpoint(config, tensors, fingerprints))


def write_side(output, side, vectors, items, digest):
    from vmnet_pipeline.inference.embeddings import EmbeddingPlan, write_embeddings
    from vmnet_pipeline.search.index_files import save_index
    from vmnet_pipeline.search.vector_index import VectorIndex

    ids = tuple(items["id"])
    planned = EmbeddingPlan(ids, ("",) * len(ids), vectors.shape[1], digest, iter([vectors]))
    write_embeddings(output / f"{side}_embeddings", planned)
    save_index(output / f"{side}_index", VectorIndex.build(vectors, items, about={"checkpoint": digest}))


def build_collection(folder, count):
    """A demo collection of short clips, embedded with random weights; where everything is."""
    import numpy as np
    import pandas as pd

    from vmnet_pipeline import Embedder
    from vmnet_pipeline.demo import DemoSpec, make_demo_collection
    from vmnet_pipeline.ingestion.discovery import find_items
    from vmnet_pipeline.ingestion.manifest import build_manifest
    from vmnet_pipeline.media.probe import probe_media
    from vmnet_pipeline.types import CollectionPlaces

    media = make_demo_collection(folder / "media", DemoSpec(count, min_duration_s=3, max_duration_s=4), n_workers=1)
    root = media if media.is_dir() else media.parent
    manifest = build_manifest(find_items(root), probe_media)
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    make_checkpoint(folder / "checkpoint", folder)
    embedder = Embedder.load(folder / "checkpoint", weights_dir=folder)
    items = pd.DataFrame(
        {
            "id": manifest["id"],
            "title": "Clip " + manifest["id"],
            "group": [f"song{place // 2}" for place in range(len(manifest))],
            "tags": ["rock, jazz" if place % 2 else "ambient" for place in range(len(manifest))],
            "duration_s": manifest["audio_duration_s"],
        }
    )
    for side, column in (("music", "audio_path"), ("video", "video_path")):
        features = [embedder.extract(side, path) for path in manifest[column]]
        store_features(folder / "features", embedder.backend(side).fingerprint(), manifest["id"], features)
        vectors = np.concatenate([embedder.embed_feature(side, feature) for feature in features])
        write_side(folder / "output", side, vectors, items, embedder.digest)
    write_words(folder / "output", manifest["id"])
    parts = (folder / "output", folder / "checkpoint", folder / "manifest.parquet", folder)
    encoder = Path(__file__).parents[2] / "data/06_models/weights/all-MiniLM-L6-v2"  # where set-up puts it
    (folder / encoder.name).symlink_to(encoder)
    return CollectionPlaces(*parts, (root,), folder / "features")


def write_words(output, ids):
    """Tags of the music: later items are likelier to be rock and less likely to be piano; nothing of the frames."""
    import numpy as np
    import pandas as pd

    order = np.linspace(-3.0, 3.0, len(ids)).astype(np.float32)
    table = pd.DataFrame(
        {"id": ids, "MTT_musicnn:rock": order, "MTT_musicnn:piano": -order, "MTT_musicnn:slow": order**2}
    )
    table.to_parquet(output / "music_words.parquet", index=False)


def store_features(folder, fingerprint, ids, features):
    import numpy as np

    from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureRow, FeatureStore

    # Longer than the clips, so that there are several pieces, which differ.
    rng = np.random.default_rng(0)
    features = [np.concatenate([array * rng.uniform(-2, 2, array.shape[1]) for _ in range(4)]) for array in features]
    rows = [FeatureRow(item_id, "done", item_id) for item_id in ids]
    results = tuple(FeatureResult(row, array) for row, array in zip(rows, features, strict=True))
    FeatureStore(folder / fingerprint.backend).write(FeatureChunk(fingerprint, results))


@contextmanager
def run_live(service, key=None, lifespan="on", host="127.0.0.1"):
    """A server of its own in a thread; yields its address."""
    import uvicorn

    from vmnet_pipeline.commands.serve import read_host
    from vmnet_pipeline.serving.app import make_app
    from vmnet_pipeline.serving.auth import ApiKey
    from vmnet_pipeline.serving.server import configure_server

    app = make_app(service, ApiKey(key))
    host, shown = read_host(host)
    config = configure_server(app, service, host, 0)
    config.lifespan = lifespan
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://{shown}:{port}"
    finally:
        server.should_exit = True
        thread.join()
