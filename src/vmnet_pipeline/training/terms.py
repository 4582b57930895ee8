"""List the descriptors among the inputs of a trained network, with what tells which of them moved a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.backends.descriptors.names import find_descriptors
from vmnet_pipeline.models.embed import embed_arrays
from vmnet_pipeline.models.occlusion import Term, find_drops
from vmnet_pipeline.types import MODALITY_OF, SIDES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import Array, Fingerprint, Modality, PairArrays, Side

N_PAIRS = 200
NOISE_SHARE = 0.9
MIN_NOISE = 1e-3
"""A smaller fall of a cosine moves nothing."""


def measure_terms(
    model: VMNet, train: PairArrays, fingerprints: Mapping[Modality, Fingerprint], seed: int
) -> dict[Side, tuple[Term, ...]]:
    """Measure every named descriptor on training pairs; empty unless both sides have some.

    Args:
        model: The trained network.
        train: Its training pairs.
        fingerprints: Of the features.
        seed: Of the unrelated pairs, at most `N_PAIRS`.
    """
    columns = {side: _find_columns(side, train, fingerprints) for side in SIDES}
    if len(train) < 2 or not all(columns.values()):
        return {}
    rows = np.random.default_rng(seed).permutation(len(train))[:N_PAIRS]
    sides: dict[Side, Array] = {side: np.asarray(getattr(train, side)[np.sort(rows)], np.float32) for side in SIDES}
    embedded = {side: _embed(model, side, vectors) for side, vectors in sides.items()}
    found: dict[Side, tuple[Term, ...]] = {}
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        every = np.asarray(getattr(train, side), np.float64)[:, list(columns[side].values())]
        mean, std = every.mean(axis=0), every.std(axis=0)
        unrelated = np.roll(embedded[other], 1, axis=0)

        def embed(vectors: Array, side: Side = side) -> Array:
            return _embed(model, side, vectors)

        drops = find_drops(embed, sides[side], [*columns[side].values()], mean.tolist(), unrelated)
        noise = np.maximum(np.quantile(drops, NOISE_SHARE, axis=0), MIN_NOISE)
        figures = zip(columns[side].items(), mean.tolist(), std.tolist(), noise.tolist(), strict=True)
        found[side] = tuple(Term(name=n, column=c, mean=m, std=s, noise=level) for (n, c), m, s, level in figures)
    return found


def _embed(model: VMNet, side: Side, vectors: Array) -> Array:
    return embed_arrays(model, music=vectors) if side == "music" else embed_arrays(model, video=vectors)


def _find_columns(side: Side, train: PairArrays, fingerprints: Mapping[Modality, Fingerprint]) -> dict[str, int]:
    """Descriptor to its column; none for features over time and for those of other backends."""
    fingerprint, shape = fingerprints.get(MODALITY_OF[side]), getattr(train, side).shape
    if fingerprint is None or len(shape) != 2:
        return {}
    widths = [part.width for part in train.parts.get(side, ())] or [shape[1]]
    columns: dict[str, int] = {}
    start = 0
    for part, width in zip(fingerprint.parts, widths, strict=True):
        names = [item.name for item in find_descriptors(part)]
        columns |= {name: start + place for place, name in enumerate(names)} if len(names) == width else {}
        start += width
    return columns
