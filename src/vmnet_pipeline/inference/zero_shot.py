"""A network without training: the towers of a variant whose backends share a space, or share text.

Backends of one joint space (CLAP with CLAP, PE-AV, ...) are compared as they are: both towers are the identity. Two
spaces that share only text, such as CLAP's and CLIP's, are joined by anchors: each item is described by its likeness to
a fixed set of texts, in its own space.

Source: L. Moschella and others, Relative representations enable zero-shot latent space communication, 2023; A. Norelli
and others, ASIF: coupled data turns unimodal models to multimodal without training, 2023.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.errors import ParameterError, VmnetError
from vmnet_pipeline.inference.embedder import recall_backend
from vmnet_pipeline.models.checkpoints import Checkpoint, read_versions
from vmnet_pipeline.models.factory import build_model
from vmnet_pipeline.storage.configuration import find_conf
from vmnet_pipeline.storage.yaml_files import load_yaml
from vmnet_pipeline.types import MODALITY_OF, SIDES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.models.projection_tower import ProjectionTower
    from vmnet_pipeline.types import Array, Fingerprint, Modality, Side

logger = logging.getLogger(__name__)

ANCHORS = "anchors.yml"
MIN_ANCHORS = 2


def make_zero_shot(backends: Mapping[Side, FeatureBackend]) -> Checkpoint:
    """Make the network of two backends; nothing is trained, and no pairs are needed.

    Args:
        backends: One of each side, with `space` and `embed_text`.

    Raises:
        ParameterError: A backend has no joint space, or the anchors cannot be used.
        WeightsError: The weights or the tokenizer of a text tower are not available.
    """
    spaces = {side: find_space(backend) for side, backend in backends.items()}
    for side, backend in backends.items():
        if spaces[side] is None:
            raise ParameterError(
                f"zero_shot: backend {backend.name!r} of {side} has no space that it shares with text; take one that "
                "has, such as music=clap,video=clip, or train a network"
            )
    is_shared = spaces["music"] == spaces["video"]
    texts = read_anchors()
    anchors = {side: _embed_anchors(backend, texts) for side, backend in backends.items()}
    projections: dict[Side, Array] = {
        side: np.eye(own.shape[1]) if is_shared else _center(own) for side, own in anchors.items()
    }
    if len({len(own) for own in projections.values()}) != 1:
        raise ParameterError(
            f"zero_shot: the backends of one space have embeddings of unlike widths: {spaces['music']}"
        )
    config, tensors = _build(projections)
    fingerprints = cast("dict[Modality, Fingerprint]", {MODALITY_OF[s]: b.fingerprint() for s, b in backends.items()})
    params = {"zero_shot": {"spaces": spaces, "anchors": [] if is_shared else list(texts)}}
    return Checkpoint(config, tensors, fingerprints, params=params, versions=read_versions())


def find_zero_shot(fingerprints: Mapping[Modality, Fingerprint], weights_dir: str | Path) -> Checkpoint | None:
    """The network without training for features of these identities; None where their backends share no space."""
    parts = {side: fingerprints[modality].parts for side, modality in MODALITY_OF.items() if modality in fingerprints}
    if len(parts) < len(SIDES) or any(len(own) > 1 for own in parts.values()):
        return None
    try:
        backends = {
            side: make_backend({**recall_backend(own[0]), "weights_dir": weights_dir}) for side, own in parts.items()
        }
        if any(find_space(backend) is None for backend in backends.values()):
            return None
        return make_zero_shot(backends)
    except VmnetError as error:  # a table without this row is still a table
        logger.warning("there is no row zero-shot: %s", error)
        return None


def find_space(backend: Any) -> str | None:
    """Name of the joint space of a backend that also embeds texts; None without one."""
    space = getattr(backend, "space", None)
    return str(space) if space is not None and hasattr(backend, "embed_text") else None


def read_anchors() -> tuple[str, ...]:
    """The texts that join two spaces.

    Raises:
        ParameterError: conf/base/anchors.yml is no list of different texts.
    """
    import yaml

    path = find_conf() / "base" / ANCHORS
    try:
        texts = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise ParameterError(f"{path}: not a list of texts ({error}); correct it") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ParameterError(f"{path}: not a list of texts; correct it")
    if len(set(texts)) != len(texts) or len(texts) < MIN_ANCHORS:
        raise ParameterError(f"{path}: give at least {MIN_ANCHORS} texts, each once")
    return tuple(texts)


def _embed_anchors(backend: Any, texts: Sequence[str]) -> Array:
    """(n, D) float64 unit rows."""
    rows = np.asarray(backend.embed_text(list(texts)), np.float64)
    if rows.ndim != 2 or len(rows) != len(texts) or not np.isfinite(rows).all():
        raise ParameterError(
            f"zero_shot: backend {backend.name!r} embeds {len(texts)} texts as {rows.shape}, or not as finite numbers"
        )
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _center(anchors: Array) -> Array:
    """Likeness to each anchor beyond that to all of them: what text is like on the whole tells items not apart."""
    return np.asarray(anchors - anchors.mean(axis=0))


def _build(projections: Mapping[Side, Array]) -> tuple[dict[str, Any], dict[str, Any]]:
    config: dict[str, Any] = {
        "music_tower": "projection", "video_tower": "projection",
        "music_shape": [projections["music"].shape[1]], "video_shape": [projections["video"].shape[1]],
        "embedding_dim": len(projections["music"]), "dropout": 0.0, "standardise": False,
    }  # fmt: skip
    model = build_model(**config)
    cast("ProjectionTower", model.music).set_projection(projections["music"])
    cast("ProjectionTower", model.video).set_projection(projections["video"])
    return config, {name: tensor.clone() for name, tensor in model.state_dict().items()}
