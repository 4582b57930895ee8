"""Whether OpenVINO gives the embeddings of torch: asked once per converted network, and remembered beside it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    from vmnet_pipeline.backends.network_backend import NetworkBackend

logger = logging.getLogger(__name__)
LEAST_COSINE = 0.999


def measure_agreement(backend: NetworkBackend) -> float:
    """The lowest cosine between the loaded network and torch, on noise."""
    import torch

    shape = backend.input_shape
    inputs = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    with torch.inference_mode():
        expected = backend.build_network()(torch.from_numpy(inputs)).float().numpy()
    found = backend.infer(inputs)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


def check_agreement(backend: NetworkBackend) -> None:
    """Refuse a converted network that does not agree.

    Raises:
        ParameterError: It does not.
    """
    mark = backend.converted.folder / "agrees"
    if mark.is_file():
        return
    cosine = measure_agreement(backend)
    logger.info("%s through OpenVINO agrees with torch: cosine %.6f", backend.name, cosine)
    if not cosine >= LEAST_COSINE:
        raise ParameterError(
            f"{backend.name}: through OpenVINO its embeddings differ from torch (cosine {cosine:.4f}); set "
            f"{backend.name}.engine: torch"
        )
    with contextlib.suppress(OSError):  # a folder that cannot be written costs this check next time
        mark.write_text(f"{cosine:.8f}\n", encoding="utf-8")
