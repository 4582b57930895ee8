"""Embed feature arrays with a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vmnet_pipeline.models.types import MaskedSequence
from vmnet_pipeline.types import Sequences

if TYPE_CHECKING:
    from torch import Tensor

    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.models.types import Features
    from vmnet_pipeline.types import FeatureArray


def gather_rows(array: FeatureArray, indices: np.ndarray) -> Features:
    """Copy the rows `indices` of an array, which may be memory-mapped, into a float32 tensor of the same order.

    Sequences come with a mask. Nothing is checked: an index out of range gives some other row.
    """
    if isinstance(array, Sequences):
        values, mask = array.take(indices)
        return MaskedSequence(torch.from_numpy(values), torch.from_numpy(mask))
    rows = torch.empty((len(indices), *array.shape[1:]), dtype=torch.float32)
    if array.dtype == np.float32:
        np.take(array, indices, axis=0, out=rows.numpy(), mode="clip")  # any other mode makes a second copy
    else:
        rows.numpy()[:] = array[indices]
    return rows


def find_finite(features: Features) -> Tensor:
    """(B,) bool, True for items without NaN or infinity; what pads a sequence is finite."""
    values = features.values if isinstance(features, MaskedSequence) else features
    return torch.isfinite(values.flatten(1)).all(dim=1)


def embed_arrays(
    model: VMNet, music: FeatureArray | None = None, video: FeatureArray | None = None, batch_size: int = 1024
) -> np.ndarray:
    """Embed one side, batch by batch, in inference mode; the model's own mode is restored afterwards.

    Features are (n, *shape) arrays, which may be memory-mapped, or sequences; exactly one side is given.

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
    if was_training:  # going through all modules costs more than embedding one item should
        model.eval()
    try:
        with torch.inference_mode():
            parts = [
                embed(gather_rows(array, np.arange(i, min(i + batch_size, len(array)))).to(weight.device)).cpu().numpy()
                for i in range(0, len(array), batch_size)
            ]
    finally:
        if was_training:
            model.train()
    return np.concatenate(parts) if parts else np.empty((0, embedding_dim(model)), dtype=np.float32)


def embedding_dim(model: VMNet) -> int:
    """Size of the shared space of a network."""
    return int(getattr(model.music, "embedding_dim", 0) or list(model.music.parameters())[-1].shape[0])
