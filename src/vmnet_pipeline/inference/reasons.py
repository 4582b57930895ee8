"""Say in words why an answer fits: the descriptors of both sides that raised this score, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.backends.descriptors.names import KINDRED_WORDS, NAMED_DESCRIPTORS
from vmnet_pipeline.models.occlusion import Term, find_drops
from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vmnet_pipeline.inference.embedder import Embedder
    from vmnet_pipeline.types import Array, ItemFeature, Side

MAX_TERMS = 3
"""Most terms of a side in a reason: those that raised the score most."""
MIN_DEVIATIONS = 0.25
"""A value nearer to the mean is neither low nor high."""

Named = tuple[Term, float]
"""A term and its value."""


def can_explain(embedder: Embedder) -> bool:
    """Whether both sides of the network have descriptors."""
    return all(embedder.checkpoint.terms.get(side) for side in SIDES)


def explain_answers(embedder: Embedder, query: Side, feature: ItemFeature, answers: Sequence[ItemFeature]) -> list[str]:
    """Explain the answers of one query, one text each; empty for one that no descriptor explains.

    Args:
        embedder: A network for which `can_explain` is true.
        query: Side of the query; the answers are of the other one.
        feature: Of the query, as the backend stores it.
        answers: Likewise, of the answers.
    """
    target: Side = "music" if query == "video" else "video"
    named = name_terms(embedder, query, feature, answers)
    return [say_terms({query: own, target: others}) for own, others in named]


def name_terms(
    embedder: Embedder, query: Side, feature: ItemFeature, answers: Sequence[ItemFeature]
) -> list[tuple[list[Named], list[Named]]]:
    """For each answer, the terms of the query and those of the answer whose absence lowers the score beyond noise."""
    target: Side = "music" if query == "video" else "video"
    pools: dict[Side, Callable[[Any], Array]] = {side: embedder.backend(side).pool for side in SIDES}
    vectors = {
        query: np.stack([pools[query](feature)] * len(answers)),
        target: np.stack([pools[target](answer) for answer in answers]),
    }
    embedded = {side: embed_pooled(embedder, side, rows) for side, rows in vectors.items()}
    found = {}
    for side, other in ((query, target), (target, query)):
        terms = embedder.checkpoint.terms[side]
        columns, means = [term.column for term in terms], [term.mean for term in terms]
        drops = find_drops(
            lambda rows, side=side: embed_pooled(embedder, side, rows),  # type: ignore[misc]
            vectors[side],
            columns,
            means,
            embedded[other],
        )
        found[side] = [_choose(terms, own, row) for own, row in zip(vectors[side], drops, strict=True)]
    return list(zip(found[query], found[target], strict=True))


def embed_pooled(embedder: Embedder, side: Side, vectors: Array) -> Array:
    """(n, D) pooled vectors of one side to (n, E) unit rows."""
    embedded = embedder([vectors, None] if side == "music" else [None, vectors], pooled=True)
    return np.asarray(getattr(embedded, side))


def _choose(terms: Sequence[Term], vector: Array, drops: Array) -> list[Named]:
    ordered = sorted(zip(terms, drops.tolist(), strict=True), key=lambda pair: -pair[1])
    named = [(term, float(vector[term.column])) for term, drop in ordered if drop > term.noise]
    return [(term, value) for term, value in named if _can_be_said(term, value)][:MAX_TERMS]


def _can_be_said(term: Term, value: float) -> bool:
    return term.name in NAMED_DESCRIPTORS and abs(value - term.mean) > MIN_DEVIATIONS * term.std


def say_terms(named: Mapping[Side, Sequence[Named]]) -> str:
    """Words for the terms of both sides, e.g. `both slow (tempo 72, cuts every 6.1 s); music: minor; video: pale`."""
    words = {side: {_find_kindred(*own): own for own in named[side]} for side in SIDES}
    shared = [word for word in words["music"] if word and word in words["video"]]
    parts = []
    if shared:
        both = [_join_numbers(word, [words[side][word] for side in SIDES]) for word in shared]
        parts.append(f"both {', '.join(both)}")
    for side in SIDES:
        rest = [_say(*own) for own in named[side] if _find_kindred(*own) not in shared]
        if rest:
            parts.append(f"{side}: {', '.join(rest)}")
    return "; ".join(parts)


def _find_kindred(term: Term, value: float) -> str:
    """The word that this term shares with one of the other side; empty for most."""
    low, high = KINDRED_WORDS.get(term.name, ("", ""))
    return high if value > term.mean else low


def _say(term: Term, value: float) -> str:
    descriptor = NAMED_DESCRIPTORS[term.name]
    word = descriptor.high_word if value > term.mean else descriptor.low_word
    return _join_numbers(word, [(term, value)])


def _join_numbers(word: str, named: Sequence[Named]) -> str:
    numbers = ", ".join(filter(None, (_say_number(term.name, value) for term, value in named)))
    return f"{word} ({numbers})" if numbers else word


def _say_number(name: str, value: float) -> str:
    """Numbers that people know."""
    if name == "tempo":
        return f"tempo {value:.0f}"
    if name == "cuts":
        return f"cuts every {60 / value:.1f} s" if value > 0.1 else "no cuts"
    return ""
