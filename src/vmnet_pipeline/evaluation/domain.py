"""Whether a query is like anything that a network has been trained on, by its nearest training item.

A network answers everything. Far from its training items it gives a few items to nearly every query, with scores that
look as usual. So a checkpoint keeps a sample of embedded training items of each side, and the cosine to the nearest of
them that items held out from training reach. A query below belongs to another kind of media; by exchangeability at
most `MISSED` of the queries of the same kind are told so, and with few held-out items 1 in their number.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.types import Array

MISSED = 0.02
MIN_QUERIES = 20
"""Fewer items say too little about how near the nearest one usually is."""
MAX_SAMPLE, MIN_SAMPLE, MAX_BYTES = 256, 32, 200_000
_SCALE = 127.0
_SLACK = 1e-3  # of rounding to 8 bits


class KnownItems(BaseModel):
    """A sample of training items of one side.

    Attributes:
        width: E, of an embedding.
        vectors: (n, E) embeddings, scaled to 8-bit integers, base64.
        threshold: Cosine to the nearest that all but `MISSED` of held-out items reach.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=2**16)
    vectors: str = Field(max_length=2 * MAX_SAMPLE * 2**16)
    threshold: Annotated[float, Field(allow_inf_nan=False)]

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        try:
            n_bytes = len(base64.b64decode(self.vectors, validate=True))
        except ValueError as error:
            raise ValueError("vectors are not base64") from error
        if not n_bytes or n_bytes % self.width:
            raise ValueError(f"{n_bytes} bytes of vectors are no rows of {self.width}")
        return self

    def find_nearest(self, vector: Array) -> float:
        """Cosine of an embedding, (E,) or (1, E), to the nearest item; -1 if it is not of that width."""
        own = np.asarray(vector, np.float32).reshape(-1)
        if own.size != self.width:
            return -1.0
        packed = np.frombuffer(base64.b64decode(self.vectors), np.int8).reshape(-1, self.width)
        return float((_unpack(packed) @ own).max() / max(float(np.linalg.norm(own)), 1e-12))


def know_items(
    train: Array, train_groups: Sequence[object], held_out: Array | None = None, seed: int = 0
) -> KnownItems | None:
    """Keep a sample of training items, and how near items that are not in it usually are.

    Args:
        train: (n, E) float32 unit rows.
        train_groups: (n,) labels; items of one group are too near to each other to count.
        held_out: (m, E) float32 unit rows that were not trained on; None or fewer than `MIN_QUERIES` takes the sample
            itself, each item without its group.
        seed: Of the sample.

    Returns:
        None without `MIN_QUERIES` items to learn the threshold from.
    """
    size = int(np.clip(MAX_BYTES // train.shape[1], MIN_SAMPLE, MAX_SAMPLE))
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:size])
    packed = _pack(np.asarray(train[rows], np.float32))
    sample = _unpack(packed)
    if held_out is not None and len(held_out) >= MIN_QUERIES:
        nearest = (np.asarray(held_out, np.float32) @ sample.T).max(axis=1)
    else:
        groups = np.unique(np.asarray([str(group) for group in train_groups]), return_inverse=True)[1][rows]
        cosines = np.where(groups[:, None] == groups[None, :], -np.inf, sample @ sample.T)
        nearest = cosines.max(axis=1)[np.isfinite(cosines.max(axis=1))]
    if len(nearest) < MIN_QUERIES:
        return None
    place = max(1, math.floor(MISSED * (len(nearest) + 1) + 1e-9))
    return KnownItems(
        width=packed.shape[1],
        vectors=base64.b64encode(packed.tobytes()).decode("ascii"),
        threshold=float(np.sort(nearest)[place - 1]) - _SLACK,
    )


def _pack(rows: Array) -> Array:
    """(n, E) int8, each row scaled to its largest value."""
    peaks = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12)
    packed: Array = np.round(rows / peaks * _SCALE).astype(np.int8)
    return packed


def _unpack(packed: Array) -> Array:
    """(n, E) float32 unit rows."""
    rows = packed.astype(np.float32)
    lengths: Array = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows / lengths
