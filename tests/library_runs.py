"""A small network on descriptors, and libraries that it indexes."""

from __future__ import annotations

from pathlib import Path

import torch

from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.hooks import library
from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
from vmnet_pipeline.models.factory import build_model

CONFIG = {
    "music_tower": "musicnn", "video_tower": "musicnn", "music_shape": [47], "video_shape": [31],
    "embedding_dim": 16, "dropout": 0.1, "standardise": False,
}  # fmt: skip


def save_descriptor_network(folder: Path, seed: int = 0) -> Path:
    backends = [make_backend({"backend": f"descriptors_{side}", "weights_dir": "w"}) for side in ("audio", "video")]
    torch.manual_seed(seed)
    tensors = {name: tensor.clone() for name, tensor in build_model(**CONFIG).state_dict().items()}
    fingerprints = {backend.modality: backend.fingerprint() for backend in backends}
    save_checkpoint(folder, Checkpoint(CONFIG, tensors, fingerprints))
    return folder


def run_library(place: Path, checkpoint: Path, **runtime_params) -> None:
    """`kedro run --pipelines=ingest,extract,embed,index --params library=...` in the current folder."""
    library.run_library({"library": str(place), "checkpoint": str(checkpoint), **runtime_params})
