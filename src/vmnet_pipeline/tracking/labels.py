"""Name of a run in MLflow, and tags that tell trainings from others: kind, collection, variant, protocol, seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = {
    "tuning": "tuning",
    "comparison": "comparison",
    "checkpoint": "training",
    "evaluation": "evaluation",
    "music_index": "index",
    "video_index": "index",
    "music_embeddings": "embedding",
    "video_embeddings": "embedding",
    "features": "extraction",
    "split_summary": "split",
    "manifest": "ingestion",
}
"""Kind of a run by what it makes; the first counts."""
LEARNING = ("training", "evaluation", "control", "comparison", "tuning")
"""Kinds that have a protocol and a seed."""


@dataclass(frozen=True, slots=True)
class RunLabels:
    """What a run is.

    Attributes:
        kind: One of `_KINDS`, `control` for mismatched pairs, or `other`.
        collection: Name of the collection, which also names experiment and registered model.
        variant: Of the network; empty where none is involved.
        protocol: Of its training; empty likewise.
        seed: Of its training; None likewise.
    """

    kind: str
    collection: str
    variant: str = ""
    protocol: str = ""
    seed: int | None = None

    @property
    def name(self) -> str:
        """E.g. `demo · vmnet_musicnn · default · seed 17`, with the kind at the end unless it is a training.

        Example:
            >>> RunLabels("control", "demo", "vmnet_musicnn", "best", 3).name
            'demo · vmnet_musicnn · best · seed 3 · control'
            >>> RunLabels("index", "demo", "vmnet_musicnn").name
            'demo · vmnet_musicnn · index'
        """
        seed = "" if self.seed is None else f"seed {self.seed}"
        kind = "" if self.kind == "training" else self.kind
        return " · ".join(part for part in (self.collection, self.variant, self.protocol, seed, kind) if part)

    @property
    def tags(self) -> dict[str, str]:
        """The parts that there are."""
        seed = "" if self.seed is None else str(self.seed)
        parts = {"kind": self.kind, "collection": self.collection, "variant": self.variant}
        parts |= {"protocol": self.protocol, "seed": seed}
        return {name: value for name, value in parts.items() if value}


def find_kind(outputs: Iterable[str], *, is_control: bool = False) -> str:
    """The kind of a run that makes these datasets."""
    made = {name.rpartition(".")[2] for name in outputs}
    kind = next((kind for name, kind in _KINDS.items() if name in made), "other")
    return "control" if is_control and kind in ("training", "evaluation") else kind


def find_variant(outputs: Iterable[str]) -> str:
    """The variant whose network, results or index a run makes; empty for runs before there is a network."""
    of_a_network = {name for name in _KINDS if name not in ("features", "split_summary", "manifest")}
    found = {name.partition(".")[0] for name in outputs if "." in name and name.rpartition(".")[2] in of_a_network}
    return " + ".join(sorted(found))
