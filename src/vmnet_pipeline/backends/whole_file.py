"""Features of a whole file, however long: one row per step or piece, made while the file is read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from vmnet_pipeline.backends.calibration import follow_stored
from vmnet_pipeline.backends.framing import count_pieces
from vmnet_pipeline.errors import MediaError, ParameterError
from vmnet_pipeline.types import Fingerprint, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import PieceParams

MAX_ROWS = 1_000_000
"""No file has more: 11 days of one row per second."""


class StreamingBackend(Protocol):
    """What a backend needs beside `FeatureBackend` so that whole files can be read."""

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """Run the front end over a whole file, a little at a time; the last value has the warnings.

        A backend with `step_s` yields an entry per step. One without yields an entry per piece: `window_s` long, one
        every `hop_s`.

        Raises:
            MediaError: The file cannot be used.
        """
        ...


class WholeFileBackend:
    """A backend that makes (T, D) float32 of a whole file, with the network and the front end of another one.

    Attributes:
        inner: The other one.
        name: Its name.
        modality: Its modality.
    """

    def __init__(self, inner: FeatureBackend, pieces: PieceParams) -> None:
        """Check that the backend can do it.

        Raises:
            ParameterError: It has no `stream`.
        """
        if not hasattr(inner, "stream"):
            raise ParameterError(
                f"backend {inner.name!r} reads the beginning of a file only; give it a method `stream`, see "
                "docs/adding-a-backend.md"
            )
        self.inner, self.pieces = inner, pieces
        self.name, self.modality = inner.name, inner.modality
        self._lock: threading.Lock | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    @property
    def step_s(self) -> float | None:
        """Seconds from one row to the next, for backends whose rows are steps; None: rows are pieces."""
        step_s: float | None = getattr(self.inner, "step_s", None)
        return step_s

    def fingerprint(self) -> Fingerprint:
        """Identity of the features: that of the other backend without the length of its window."""
        inner = self.inner.fingerprint()
        settings = {name: value for name, value in inner.settings.items() if name not in ("max_duration_s", "pooled")}
        rows = {"step_s": self.step_s} if self.step_s else self.pieces.model_dump()
        return Fingerprint(inner.backend, {**settings, "whole_file": rows})

    def follow(self, stored: Fingerprint) -> None:
        """See `NetworkBackend.follow`."""
        follow_stored(self.inner, stored)

    def load(self) -> None:
        """See `FeatureBackend.load`."""
        self.inner.load()
        self._lock = self._lock or threading.Lock()

    def prepare(self, path: str) -> PreparedItem:
        """All rows of a file, read in this process."""
        return self.read(path)

    def read(self, path: str, sandbox: Sandbox | None = None) -> PreparedItem:
        """All rows of a file: (T, D) float32, T >= 1, read in a child process. Needs `load`.

        Raises:
            MediaError: The file cannot be used.
        """
        stream = cast("StreamingBackend", self.inner).stream
        options = {"window_s": self.pieces.window_s, "hop_s": self.pieces.hop_s}
        parts = stream(path, **options) if sandbox is None else sandbox.stream(stream, path, **options)
        rows, warnings = list[np.ndarray](), list[str]()
        for part in parts:
            warnings += part.warnings
            if len(part.inputs):
                rows.append(self._infer(part.inputs))
            if sum(map(len, rows)) > MAX_ROWS:
                raise MediaError("too_long", f"{path}: it is longer than {MAX_ROWS:,} steps; cut it")
        if not rows:
            raise MediaError("too_short", f"{path}: it has nothing that a feature can be made of")
        feature = np.concatenate(rows)
        return PreparedItem(feature, len(feature), tuple(warnings))

    def _infer(self, inputs: np.ndarray) -> np.ndarray:
        if self._lock is None:
            raise RuntimeError(f"backend {self.name!r}: call load() before read()")
        with self._lock:  # files are read side by side; the network is one
            outputs = self.inner.infer(inputs)
        reduce_steps = getattr(self.inner, "reduce_steps", None)
        return np.asarray(reduce_steps(outputs) if reduce_steps else outputs, np.float32).reshape(len(outputs), -1)

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """The rows are made by `read`."""
        return inputs

    def finish(self, feature: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.finish`."""
        return np.ascontiguousarray(feature, np.float32)

    def pool(self, feature: np.ndarray) -> np.ndarray:
        """The mean of the rows."""
        return np.asarray(feature.mean(axis=0, dtype=np.float64), np.float32)

    def pool_piece(self, rows: np.ndarray) -> np.ndarray:
        """The rows of a piece, (t, D), as training pools those of an item: (D,). Of VGGish the mean of its patches."""
        if hasattr(self.inner, "reduce_steps"):
            return self.pool(rows)
        return np.asarray(self.inner.pool(rows), np.float32)

    def cut(self, feature: np.ndarray) -> list[np.ndarray]:
        """The rows of each piece: (t, D) each, t >= 1, a piece every `hop_s`."""
        if not self.step_s:
            return [row[None] for row in feature]
        window_s, hop_s = self.pieces.window_s, self.pieces.hop_s
        n_pieces = count_pieces(len(feature) * self.step_s, window_s, hop_s)
        starts = [min(round(k * hop_s / self.step_s), len(feature) - 1) for k in range(n_pieces)]
        n_steps = max(1, round(window_s / self.step_s))
        return [feature[start : start + n_steps] for start in starts]
