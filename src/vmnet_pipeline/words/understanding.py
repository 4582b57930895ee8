"""From a text to weights on what is known of items: by the words of concepts, then by likeness of meaning.

Words of a clause that are words of a concept ask for it, the longest first. For the words that are left, the whole
clause is embedded, and the concepts whose words are nearest to it share them; where nothing is near enough the clause
is not understood, and said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.words.asking import read_clauses
from vmnet_pipeline.words.concepts import SIGN, list_concepts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmnet_pipeline.words.asking import Clause
    from vmnet_pipeline.words.concepts import Concept
    from vmnet_pipeline.words.sentences import TextEncoder

MIN_LIKENESS = 0.35
"""Cosine of a clause and the words of a concept from which the clause is taken for it. What is below is mostly of other
matters, and so is some of what is above: what a clause is taken for is said."""
MAX_BEHIND = 0.1
"""Concepts that are less like a clause than the nearest one, by more than this, have no share in it."""
TEMPERATURE = 0.04
MAX_SHOWN = 3
"""Guesses that are told of a clause."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one clause asks for.

    Attributes:
        text: The clause.
        is_excluded: Whether items are wanted that do not have it.
        weights: Column to weight; the absolute values sum up to at most 1.
        guesses: Names of the concepts that it is taken for because they mean the like, the nearest first.
    """

    text: str
    is_excluded: bool
    weights: Mapping[str, float]
    guesses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a text asks for.

    Attributes:
        wishes: At least one.
        unknown: Clauses that are not understood.
    """

    wishes: tuple[Wish, ...]
    unknown: tuple[str, ...] = ()

    @property
    def remark(self) -> str:
        """Sentences about what is guessed and what is not understood; may be empty."""
        guessed = ", ".join(
            f"{_quote(wish.text)} as {' / '.join(wish.guesses[:MAX_SHOWN])}" for wish in self.wishes if wish.guesses
        )
        unknown = ", ".join(map(_quote, self.unknown))
        sentences = (guessed and f"Taken: {guessed}.", unknown and f"Not understood, and left out: {unknown}.")
        return " ".join(filter(None, sentences))


@dataclass(slots=True)
class Listener:
    """Understands texts about the items of one side of a library.

    Attributes:
        columns: What is known of them.
        encoder: Embeds texts.
    """

    columns: Sequence[str]
    encoder: TextEncoder
    concepts: list[Concept] = field(init=False)
    _vectors: np.ndarray = field(init=False)
    _owners: np.ndarray = field(init=False)
    _phrases: dict[tuple[str, ...], int] = field(init=False)

    def __post_init__(self) -> None:
        self.concepts = list_concepts(self.columns)
        said = [(words, place) for place, concept in enumerate(self.concepts) for words in concept.says]
        self._owners = np.array([place for _, place in said])
        self._vectors = self.encoder.embed([words for words, _ in said])
        self._phrases = {}
        for words, place in said:
            self._phrases.setdefault(_find_stems(words.split()), place)

    def understand(self, text: str) -> Wishes:
        """What a text asks for.

        Raises:
            ParameterError: It is empty or too long, or nothing of it is understood.
        """
        found: list[Wish] = []
        unknown: list[str] = []
        for clause in read_clauses(text):
            shares, guesses = self._find_concepts(clause)
            if shares:
                names = tuple(self.concepts[place].name.rpartition(SIGN)[2] for place in guesses)
                found.append(Wish(clause.text, clause.is_excluded, self._weigh(shares), names))
            else:
                unknown.append(clause.text)
        if not found:
            raise ParameterError(
                f"the text is not understood: nothing known of the items is like {_quote(unknown[0])}; use English "
                "words for genres, instruments, moods or tempo, e.g. 'slow piano, no drums'"
            )
        return Wishes(tuple(found), tuple(unknown))

    def _find_concepts(self, clause: Clause) -> tuple[dict[int, float], list[int]]:
        """Place of each concept that a clause asks for, to its share of the clause; and which of them are guessed."""
        named, n_left = self._match(clause)
        shares = dict.fromkeys(named, 1.0)
        alike = self._find_alike(clause.text) if n_left else {}
        total = float(n_left) if named else 1.0
        for place, share in alike.items():
            shares[place] = shares.get(place, 0.0) + total * share
        whole = sum(shares.values())
        guesses = [place for place in sorted(alike, key=lambda place: -alike[place]) if place not in named]
        return {place: share / whole for place, share in shares.items()}, guesses

    def _match(self, clause: Clause) -> tuple[list[int], int]:
        """Concepts whose words are in the clause, and how many words that say something are left."""
        stems, content, found = _find_stems(clause.words), set(clause.content), []
        start = n_left = 0
        while start < len(stems):
            ends = range(min(len(stems), start + 4), start, -1)
            end = next((end for end in ends if stems[start:end] in self._phrases), 0)
            if end:
                found.append(self._phrases[stems[start:end]])
            else:
                n_left += clause.words[start] in content
            start = end or start + 1
        return list(dict.fromkeys(found)), n_left

    def _find_alike(self, text: str) -> dict[int, float]:
        """Concepts whose words mean the like of a text, to shares that sum up to 1; empty where none is near."""
        likeness = self._vectors @ self.encoder.embed([text])[0]
        best = np.full(len(self.concepts), -1.0)
        np.maximum.at(best, self._owners, likeness)
        if not best.max(initial=-1.0) >= MIN_LIKENESS:
            return {}
        near = np.flatnonzero(best >= max(best.max() - MAX_BEHIND, MIN_LIKENESS))
        shares = np.exp((best[near] - best.max()) / TEMPERATURE)
        return dict(zip(near.tolist(), (shares / shares.sum()).tolist(), strict=True))

    def _weigh(self, shares: Mapping[int, float]) -> dict[str, float]:
        weights: dict[str, float] = {}
        for place, share in shares.items():
            for column, weight in self.concepts[place].columns.items():
                weights[column] = weights.get(column, 0.0) + share * weight
        return weights


def _find_stems(words: Sequence[str]) -> tuple[str, ...]:
    """Words without the plural's s."""
    return tuple(word[:-1] if len(word) > 3 and word[-1] == "s" != word[-2] else word for word in words)


def _quote(text: str) -> str:
    return f"'{text if len(text) <= 50 else f'{text[:49]}…'}'"
