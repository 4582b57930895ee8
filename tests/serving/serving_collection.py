"""Builds what the service serves: a checkpoint with random weights, one side of a gallery; and serves it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

MUSIC = {"backend": "musicnn", "weights": "random", "max_duration_s": 4.0, "engine": "torch", "precision": "f32"}
VIDEO = {"backend": "efficientnet", "weights": "random", "max_duration_s": 2.0, "engine": "torch", "precision": "f32"}


def make_checkpoint(folder, weights_dir, seed=1):
    import torch

    from vmnet_pipeline.features.extraction import make_backend
    from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
    from vmnet_pipeline.models.towers import build_model

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
    from vmnet_pipeline.retrieval.index import VectorIndex
    from vmnet_pipeline.retrieval.index_files import save_index
    from vmnet_pipeline.search.embeddings import PlannedEmbeddings, write_embeddings

    ids = tuple(items["id"])
    planned = PlannedEmbeddings(ids, ("",) * len(ids), vectors.shape[1], digest, iter([vectors]))
    write_embeddings(output / f"{side}_embeddings", planned)
    save_index(output / f"{side}_index", VectorIndex.build(vectors, items, about={"checkpoint": digest}))


@contextmanager
def run_live(service, key=None):
    """A server of its own in a thread; yields its address."""
    import uvicorn

    from vmnet_pipeline.serving.app import make_app
    from vmnet_pipeline.serving.guard import ApiKey

    app = make_app(service, ApiKey(key))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
