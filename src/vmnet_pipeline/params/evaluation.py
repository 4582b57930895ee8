"""How retrieval is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vmnet_pipeline.params.base import Params


def split_numbers(given: Any) -> Any:
    """Split a list as `--params` passes it: `1 10 25` is one text, a single number is itself."""
    if isinstance(given, str):
        return given.split()
    return (given,) if isinstance(given, int) else given


SPLIT = BeforeValidator(split_numbers)


class RerankParams(Params):
    """Re-ranking of the top results, piece by piece."""

    n_candidates: int = Field(
        default=0, ge=0, description="Number of top results of each query that are re-ranked; 0: no re-ranking."
    )
    piece_s: float = Field(default=3.0, gt=0, description="Length of the pieces of music and video.")


class EvaluateParams(Params):
    """How retrieval is measured."""

    ks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], SPLIT] = Field(
        default=(1, 5, 10, 20, 25, 50, 100), min_length=1, description="Cut-offs K of Recall@K."
    )
    pool_size: int | None = Field(
        default=None,
        ge=2,
        description="null: every query searches the whole gallery. A number: consecutive pools of that size in file "
        "order, the last incomplete one dropped, ties to the lower index; 1024 is the original protocol.",
    )
    pool_sizes: Annotated[tuple[Annotated[int, Field(ge=2)], ...], SPLIT] = Field(
        default=(1000, 1024, 2000),
        description="Sizes of random pools for which recall is also reported, to compare with papers; expected over "
        "all such pools. Those not smaller than the gallery are left out.",
    )
    similarity: Literal["cosine", "csls", "centred"] = Field(
        default="cosine",
        description="`csls` lowers the scores of items that are close to everything (hubs); `centred` takes the mean "
        "of each side out of it.",
    )
    csls_neighbours: int = Field(default=10, ge=1, description="Neighbours whose mean score `csls` subtracts.")
    positives: Literal["id", "group"] = Field(
        default="id", description="What is relevant: the same item, or any item of the same group (song)."
    )
    n_resamples: int = Field(default=2000, ge=1, description="Draws of the bootstrap.")
    confidence_level: float = Field(default=0.95, gt=0, lt=1, description="Of the bootstrap intervals.")
    resample_by: Literal["group", "query"] = Field(
        default="group",
        description="Unit of the bootstrap. Clips of one song are not independent, so whole groups are drawn; "
        "without groups, queries are.",
    )
    shuffle_pairs: bool = Field(
        default=False, description="Control: mismatch the pairs on purpose; every metric should fall to chance."
    )
    rerank: RerankParams = Field(
        default_factory=RerankParams,
        description="Re-ranking by agreement over time: its weight is chosen on val, its gain on test is reported.",
    )
    top_n: int = Field(default=10, ge=0, description="Top results kept for every query.")
    chunk_size: int = Field(default=1024, ge=1, description="Queries scored together; changes memory, not results.")
    seed: int = Field(default=17, ge=0, description="Of the bootstrap and of mismatching.")
