"""What a descriptor contributes to a score: how far the score falls when the descriptor has its mean in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmnet_pipeline.types import Array

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Term(BaseModel):
    """A descriptor among the inputs of a network.

    Attributes:
        name: Of the descriptor.
        column: Its place in the pooled vector of its side.
        mean: In training; `std` likewise.
        noise: Fall of the score that 90 % of unrelated pairs do not exceed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=100)
    column: int = Field(ge=0)
    mean: Finite
    std: Finite = Field(ge=0)
    noise: Finite = Field(ge=0)


def find_drops(
    embed: Callable[[Array], Array], vectors: Array, columns: Sequence[int], means: Sequence[float], others: Array
) -> Array:
    """Occlude one column after the other: (n, len(columns)) falls of the score of each row with its partner.

    Args:
        embed: (m, D) pooled vectors of a side to (m, E) unit rows.
        vectors: (n, D) pooled vectors of that side.
        columns: Which to occlude.
        means: What they are replaced by.
        others: (n, E) unit rows of the other side, one for each row of `vectors`.
    """
    n, n_terms = len(vectors), len(columns)
    changed = np.repeat(np.asarray(vectors, np.float32)[:, None], n_terms, axis=1)
    changed[:, np.arange(n_terms), np.asarray(columns, np.int64)] = np.asarray(means, np.float32)
    rows = embed(changed.reshape(n * n_terms, -1)).reshape(n, n_terms, -1)
    before = np.einsum("ne,ne->n", embed(np.asarray(vectors, np.float32)), others)
    return np.asarray(before[:, None] - np.einsum("nte,ne->nt", rows, others))
