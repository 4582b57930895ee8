"""The network that indexes libraries, and whole files embedded with it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.backends.joint import JointBackend, list_parts
from vmnet_pipeline.backends.whole_file import WholeFileBackend
from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.inference.embedder import find_own_checkpoint
from vmnet_pipeline.inference.pieces import split_feature
from vmnet_pipeline.inference.starter import STARTER_FOLDER, describe_starter, load_starter, read_checkpoint
from vmnet_pipeline.storage.names import DiskNames
from vmnet_pipeline.storage.paths import as_path

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.models.checkpoints import Checkpoint
    from vmnet_pipeline.params import PieceParams
    from vmnet_pipeline.types import Side

logger = logging.getLogger(__name__)


def find_network(checkpoint: str = "") -> tuple[Path, Checkpoint]:
    """The checkpoint of this name, a folder or that of a variant; the starter model where none is given.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    if not checkpoint:
        starter = load_starter()
        logger.warning("%s, and name it: checkpoint=FOLDER", describe_starter(starter))
        return STARTER_FOLDER, starter
    folder = as_path(checkpoint).expanduser()
    own = find_own_checkpoint(folder)
    if own is None:
        raise CheckpointError(f"there is no checkpoint {folder}; train first (kedro run), or check the path")
    return own, read_checkpoint(own)


def embed_whole_file(
    embedder: Embedder, side: Side, path: str | Path, params: PieceParams, *, warnings: list[str] | None = None
) -> np.ndarray:
    """Embed the pieces of one side of a whole file: (n, E) float32 unit rows, in order of time.

    Raises:
        MediaError: The file cannot be used, or reading a part of it goes beyond the limits.
        ParameterError: The backend of this side reads the beginning of files only.
    """
    parts = [WholeFileBackend(part, params) for part in list_parts(embedder.backend(side))]
    features, found = list["np.ndarray"](), list[str]()
    for part in parts:
        part.load()
        prepared = part.read(DiskNames().find(str(path)), embedder.sandbox)
        features.append(prepared.inputs)
        found += [text for text in prepared.warnings if text not in found]
    if warnings is not None:
        warnings += found
    backend = parts[0] if len(parts) == 1 else JointBackend(cast("Any", parts))
    pieces = split_feature(backend, features[0] if len(parts) == 1 else tuple(features))
    return embedder.embed_pieces(side, pieces, backend)
