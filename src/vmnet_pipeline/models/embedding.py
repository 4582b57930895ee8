"""Embedding of feature arrays with a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from vmnet_pipeline.models.towers import VMNet


def gather_rows(array: np.ndarray, indices: np.ndarray) -> Tensor:
    """Copy the rows `indices` of an array, which may be memory-mapped, into a float32 tensor of the same order.

    Rows are read in file order: on a memory-mapped file that is fewer and longer reads.
    """
    rows = torch.empty((len(indices), *array.shape[1:]), dtype=torch.float32)
    order = np.argsort(indices, kind="stable")
    rows.numpy()[order] = array[indices[order]]
    return rows


def embed_arrays(
    model: VMNet, music: np.ndarray | None = None, video: np.ndarray | None = None, batch_size: int = 1024
) -> np.ndarray:
    """Embed one side, batch by batch, in inference mode; the model's own mode is put back afterwards.

    Args:
        model: The network, on any device.
        music: (n, *music_shape) features, or None; may be memory-mapped.
        video: (n, *video_shape) features, or None; exactly one of the two is given.
        batch_size: Items per step.

    Returns:
        (n, E) float32, rows of unit length.

    Raises:
        ValueError: Both sides or none are given.
    """
    if (music is None) == (video is None):
        raise ValueError("give either music or video features, not both and not none")
    array, embed = (music, model.embed_music) if music is not None else (video, model.embed_video)
    assert array is not None  # noqa: S101 - narrows the type; checked above
    weight = next(model.parameters())
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            parts = [
                embed(gather_rows(array, np.arange(i, min(i + batch_size, len(array)))).to(weight.device)).cpu().numpy()
                for i in range(0, len(array), batch_size)
            ]
    finally:
        model.train(was_training)
    return np.concatenate(parts) if parts else np.empty((0, embedding_dim(model)), dtype=np.float32)


def embedding_dim(model: VMNet) -> int:
    """Size of the shared space of a network."""
    return int(getattr(model.music, "embedding_dim", 0) or list(model.music.parameters())[-1].shape[0])
