"""What is known of the items of one side in numbers that words can ask for, and how well items meet wishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.storage.checksummed import read_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vmnet_pipeline.types import Side
    from vmnet_pipeline.words.understanding import Wishes

REMEDY = {
    "music": "extract what words can ask for and index again: kedro run --pipelines=extract_musicnn,"
    "extract_musicnn_tags,extract_descriptors_audio,index",
    "video": "extract what words can ask for and index again: kedro run --pipelines=extract_efficientnet,"
    "extract_descriptors_video,index",
}

MAX_DEVIATIONS = 4.0
"""A value farther from the mean counts as this far."""


@dataclass(frozen=True, slots=True)
class Qualities:
    """Numbers about items, on scales that can be added up.

    Attributes:
        ids: (n,) items.
        columns: (m,) names.
        values: (n, m) float32: deviations from the mean of the items in standard deviations; 0 where not known.
        known: (n,) bool: whether anything is known of the item.
    """

    ids: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    known: np.ndarray

    @classmethod
    def measure(cls, ids: Sequence[str], columns: Sequence[str], raw: np.ndarray) -> Qualities:
        """Put raw numbers on scales.

        Args:
            ids: Items.
            columns: Names.
            raw: (n, m): log-odds for what is a probability, else any number; NaN where not known.
        """
        raw = np.where(np.isfinite(raw), raw, np.nan).astype(np.float64)
        is_known = np.isfinite(raw)
        n_known = np.maximum(is_known.sum(axis=0), 1)
        mean = np.where(is_known, raw, 0.0).sum(axis=0) / n_known
        centred = np.where(is_known, raw - mean, 0.0)
        std = np.sqrt((centred**2).sum(axis=0) / n_known)
        values = np.clip(centred / np.where(std > 1e-9, std, np.inf), -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return cls(tuple(ids), tuple(columns), values.astype(np.float32), is_known.any(axis=1))

    def score(self, wishes: Wishes) -> np.ndarray:
        """(n,) float64: how well items meet wishes, in deviations from the mean item; -inf where nothing is known."""
        parts = [(self._add_up(wish.weights), wish.is_excluded) for wish in wishes.wishes]
        return np.asarray(np.where(self.known, join_clauses(parts, self.known), -np.inf))

    def _add_up(self, weights: Mapping[str, float]) -> np.ndarray:
        places = {column: place for place, column in enumerate(self.columns)}
        chosen = [places[column] for column in weights]
        return np.asarray(self.values[:, chosen] @ np.array(list(weights.values()), np.float32), np.float64)


def join_clauses(parts: Sequence[tuple[np.ndarray, bool]], known: np.ndarray) -> np.ndarray:
    """Score items by several clauses, which count alike.

    Args:
        parts: Of each clause (n,) numbers, larger for items that have more of it, and whether it is an exclusion.
        known: (n,) bool: items that tell mean and deviation of the numbers.

    Returns:
        (n,) float64, in deviations from the mean item.
    """
    scores = np.zeros(len(known))
    for values, is_excluded in parts:
        own = _standardise(values, known)
        scores += -_soften(own) if is_excluded else own
    return np.asarray(scores / max(len(parts), 1))


def _standardise(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    if not known.any():
        return values
    std = values[known].std()
    return np.asarray((values - values[known].mean()) / (std if std > 1e-9 else 1.0))


def _soften(values: np.ndarray) -> np.ndarray:
    """What is excluded counts against an item that has it more than it speaks for one that has it less."""
    return np.asarray(np.where(values > 0, values, 0.5 * values))


def read_qualities(output: Path, side: Side) -> Qualities:
    """Read what is known of the items of one side, as the `index` pipeline wrote it next to the index.

    Raises:
        SearchIndexError: There is none, or it is damaged.
    """
    path = output / f"{side}_words.parquet"
    try:
        table = read_frame(path)
        raw = table.drop(columns=["id"]).to_numpy(np.float64)
    except FileNotFoundError as error:
        raise SearchIndexError(f"there is nothing in {output} that words can ask for; {REMEDY[side]}") from error
    except (OSError, ValueError, KeyError) as error:
        raise SearchIndexError(f"{path} is damaged ({error}); make it again: kedro run --pipeline index") from error
    if not np.isfinite(raw).any():
        raise SearchIndexError(f"no item has tags or anything else that words can ask for; {REMEDY[side]}")
    return Qualities.measure(table["id"].astype("str").tolist(), [str(name) for name in table.columns[1:]], raw)
