"""Value types shared by the layers. No heavy import."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]
    FeatureArray: TypeAlias = "np.ndarray | Sequences"
    ItemFeature: TypeAlias = "np.ndarray | tuple[np.ndarray, ...]"  # as stored; of several backends one array each

Modality = Literal["audio", "video"]
Side = Literal["music", "video"]

SIDES: tuple[Side, Side] = ("music", "video")
MODALITY_OF: dict[Side, Modality] = {"music": "audio", "video": "video"}
"""What a side of a pair is made of; fingerprints and stores speak of modalities, towers and searches of sides."""

JOINT_SIGN = "+"
"""Between the names of backends whose features are joined: `musicnn+descriptors_audio`."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The identity of a feature: everything that changes its numbers.

    Attributes:
        backend: Name of the backend, e.g. `musicnn`.
        settings: JSON-able settings: model, layer, weights sha256, preprocessing, window, engine, precision.
    """

    backend: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hex sha256 of the canonical JSON form, 64 characters."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        content = {"backend": self.backend, "settings": self.settings}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def join(cls, parts: Sequence[Fingerprint]) -> Fingerprint:
        """The identity of the features of several backends together; that of one is its own."""
        if len(parts) == 1:
            return parts[0]
        return cls(JOINT_SIGN.join(part.backend for part in parts), {part.backend: part.settings for part in parts})

    @property
    def parts(self) -> tuple[Fingerprint, ...]:
        """One identity per backend; inverse of `join`. Itself where it is none of several, or does not tell theirs."""
        names = self.backend.split(JOINT_SIGN)
        if len(names) == 1 or not all(isinstance(self.settings.get(name), dict) for name in names):
            return (self,)
        return tuple(Fingerprint(name, self.settings[name]) for name in names)

    def describe_difference(self, other: Fingerprint) -> str:
        """In words, what `other` has instead: `model 'a', not 'b'; ...`; empty for equal ones."""
        if self.backend != other.backend:
            return f"backend {self.backend!r}, not {other.backend!r}"
        if len(self.parts) > 1:
            unlike = [pair for pair in zip(self.parts, other.parts, strict=True) if pair[0].digest != pair[1].digest]
            return "; ".join(f"{own.backend}: {own.describe_difference(its)}" for own, its in unlike)
        names = sorted({*self.settings, *other.settings})
        return "; ".join(
            f"{name} {self.settings.get(name)!r}, not {other.settings.get(name)!r}"
            for name in names
            if self.settings.get(name) != other.settings.get(name)
        )


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One side (sound or picture) of one item, as feature extraction sees it.

    Attributes:
        id: Item id, safe as a file name.
        path: File to decode.
        checksum: Content checksum of the file.
    """

    id: str
    path: str
    checksum: str


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """What a backend's front end makes of one media file.

    Attributes:
        inputs: (n, ...) network inputs, n >= 1, one per patch or frame.
        n_valid: How many leading entries stem from real signal; the rest is padding (1 <= n_valid <= n).
        warnings: What the user has to know of features that are made all the same, e.g. that only a part of the file
            could be read; sentences without the path.
    """

    inputs: np.ndarray
    n_valid: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What probing found of one audio or video stream; `warning` says what is wrong with one that is usable."""

    codec: str
    duration_s: float | None
    sample_rate_hz: int | None = None
    channels: int | None = None
    width: int | None = None
    height: int | None = None
    frame_rate_hz: float | None = None
    warning: str = ""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What probing found of one media file; a side that is absent is None.

    A cover picture attached to a sound file does not count as video.
    """

    container: str
    duration_s: float | None
    size_bytes: int
    checksum: str
    audio: StreamInfo | None
    video: StreamInfo | None


@dataclass(frozen=True, slots=True)
class Sequences:
    """Steps (patches, frames) of many items, one item after the other; items differ in length.

    Attributes:
        values: (total, D) floating point, may be memory-mapped.
        offsets: (n + 1,) int64, ascending; item i has the rows `offsets[i]` to `offsets[i + 1]`, at least one.
        max_steps: No item has more steps than this.
    """

    values: np.ndarray
    offsets: np.ndarray
    max_steps: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, part: slice) -> Sequences:
        """Consecutive items as a view; nothing is copied."""
        start, stop, _ = part.indices(len(self))
        return Sequences(self.values, self.offsets[start : max(start, stop) + 1], self.max_steps)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, max_steps, D): the array that would hold all items."""
        return (len(self), self.max_steps, self.values.shape[1])

    @property
    def ndim(self) -> int:
        """3, as of that array."""
        return 3

    @property
    def dtype(self) -> Any:
        """NumPy type of the values."""
        return self.values.dtype

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64, steps of each item."""
        import numpy as np

        return np.diff(self.offsets)

    @property
    def steps(self) -> np.ndarray:
        """(sum of lengths, D): the steps of these items as a view."""
        return self.values[self.offsets[0] : self.offsets[-1]]

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copy some items, read in file order.

        Args:
            rows: (B,) numbers of items.

        Returns:
            (B, T, D) float32 with T the longest length among them and zeros behind each item, and a (B, T) bool mask
            that is True where a step is.
        """
        import numpy as np

        lengths = self.lengths[rows]
        mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
        values = np.zeros((*mask.shape, self.values.shape[1]), np.float32)
        for place in np.argsort(rows, kind="stable"):
            start = self.offsets[rows[place]]
            values[place, : lengths[place]] = self.values[start : start + lengths[place]]
        return values, mask


@dataclass(frozen=True, slots=True)
class FeaturePart:
    """What one of several backends contributes to the joint vector of a side.

    Attributes:
        backend: Its name.
        width: Its entries, which follow those of the part before.
        weight: Factor on its standardised entries; None before it is chosen, see `training.fusion`.
    """

    backend: str
    width: int
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class PairArrays:
    """Packed features of matching pairs; row i of every member is one item. Arrays may be memory-mapped.

    Attributes:
        ids: Item ids; the same id twice means that both rows match each other.
        groups: Song or scene of each item.
        music: (n, ...) floating point, e.g. (n, 62, 512) or (n, 200), the pooled music features; or their sequences.
        video: (n, Dv) floating point, the pooled video features; or their sequences.
        parts: Parts of the joint vectors, of the sides that have several backends.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    music: FeatureArray
    video: FeatureArray
    parts: Mapping[Side, tuple[FeaturePart, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What happened in one epoch of training.

    Attributes:
        epoch: 1-based.
        steps: Optimiser steps since the start of training.
        losses: Means over the epoch's batches: `total` and the loss's own unweighted terms.
        grad_norm: Mean over batches of the L2 norm of the gradient of all parameters.
        lr: Learning rate of the epoch's last step.
        val: Validation metrics (`mrr`, `loss`, `recall_at_10_xy`, ...); empty when this epoch was not evaluated.
        seconds: Wall time of the epoch with its evaluation; the one field that differs between equal runs.
    """

    epoch: int
    steps: int
    losses: dict[str, float]
    grad_norm: float
    lr: float
    val: dict[str, float]
    seconds: float

    def to_row(self) -> dict[str, float]:
        """One flat row: `loss` is the total, validation metrics have the prefix `val_`."""
        terms = {name: value for name, value in self.losses.items() if name != "total"}
        val = {f"val_{name}": value for name, value in self.val.items()}
        head = {"epoch": self.epoch, "steps": self.steps, "loss": self.losses["total"]}
        return {**head, **terms, "grad_norm": self.grad_norm, "lr": self.lr, **val, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class CollectionPlaces:
    """Locations of the parts of one collection and variant.

    Attributes:
        output: Folder with `music_index`, `video_index`, `music_embeddings` and `video_embeddings`.
        checkpoint: The network that made them.
        manifest: Table of the collection, with the paths of its media; without it no media are sent.
        weights_dir: Weight files of the feature backends.
        media_roots: Folders that media may be sent from; files elsewhere, also through links, are not sent.
        features: Folder with its feature stores; without it the service does not re-rank.
    """

    output: Path
    checkpoint: Path
    manifest: Path
    weights_dir: Path
    media_roots: tuple[Path, ...]
    features: Path | None = None
