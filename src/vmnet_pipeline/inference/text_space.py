"""Texts in the space of a network: where its features are of a joint space, and its towers project them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vmnet_pipeline.inference.zero_shot import find_space
from vmnet_pipeline.models.checkpoints import CONFIG_FILE, read_model_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.types import Side

TOWER = "projection"
"""The tower that takes texts as well as features: a matrix from the joint space."""


def projects_texts(checkpoint: Path, side: Side) -> bool:
    """Whether a checkpoint's tower of a side could take texts; cheap, no network is loaded.

    Raises:
        CheckpointError: Its configuration is damaged.
    """
    return (checkpoint / CONFIG_FILE).is_file() and read_model_config(checkpoint).get(f"{side}_tower") == TOWER


def embeds_texts(embedder: Embedder, side: Side) -> bool:
    """Whether texts can be embedded like items of a side."""
    is_projection = embedder.checkpoint.model_config.get(f"{side}_tower") == TOWER
    return is_projection and find_space(embedder.backend(side)) is not None


def embed_texts(embedder: Embedder, side: Side, texts: Sequence[str]) -> np.ndarray:
    """Embed texts like items of a side: (n, E) float32 unit rows.

    Raises:
        ParameterError: The model embeds no texts.
        WeightsError: Its text tower or tokenizer is not available.
        EmbedderError: What it gives does not fit the network.
    """
    rows = np.asarray(cast("Any", embedder.backend(side)).embed_text(list(texts)), np.float32)
    found = embedder([rows, None] if side == "music" else [None, rows], pooled=True)
    return np.asarray(getattr(found, side))
