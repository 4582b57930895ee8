"""Order search hits so that they differ from each other: maximal marginal relevance.

Source: J. Carbonell, J. Goldstein, The use of MMR, diversity-based reranking for reordering documents, 1998.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmnet_pipeline.search.vector_index import Hit


def diversify_hits(hits: Sequence[Hit], vectors: np.ndarray, variety: float, top_k: int) -> list[Hit]:
    """Choose hits one by one: the best one, then each time the highest (1 - variety) * score - variety * likeness.

    Args:
        hits: Candidates, best first; scores stay as they are.
        vectors: (k, E) float32 unit rows, those of the hits. Likeness is the largest cosine to a hit chosen before.
        variety: 0 keeps the order of the scores, 1 looks only at likeness.
        top_k: Most hits.
    """
    if not hits:
        return []
    scores = np.array([hit.score for hit in hits])
    chosen, likeness = [int(scores.argmax())], np.full(len(hits), -np.inf)
    while len(chosen) < min(top_k, len(hits)):
        likeness = np.maximum(likeness, vectors @ vectors[chosen[-1]])
        values = (1.0 - variety) * scores - variety * likeness
        values[chosen] = -np.inf
        chosen.append(int(values.argmax()))
    return [hits[place] for place in chosen]
