"""Loudness of each second of audio, in decibels: an example of a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.types import Fingerprint, Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SAMPLE_RATE_HZ = 16_000


class LoudnessBackend:
    """(T, 1) float32 per item, one row per second of audio."""

    name: ClassVar[str] = "loudness"
    modality: ClassVar[Modality] = "audio"

    def __init__(self, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = "") -> None:
        self.floor_db = float((params or {}).get("floor_db", -60.0))

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name, {"floor_db": self.floor_db})

    def load(self) -> None:
        pass  # there are no weights

    def prepare(self, path: str) -> PreparedItem:
        warnings: list[str] = []
        samples = decode_audio(path, sample_rate_hz=SAMPLE_RATE_HZ, max_duration_s=60.0, warnings=warnings)
        n_seconds = max(1, len(samples) // SAMPLE_RATE_HZ)
        samples = np.resize(samples, n_seconds * SAMPLE_RATE_HZ)
        return PreparedItem(samples.reshape(n_seconds, SAMPLE_RATE_HZ), n_seconds, tuple(warnings))

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        power = np.square(inputs, dtype=np.float64).mean(axis=1, keepdims=True)
        return np.asarray(10 * np.log10(power + 10 ** (self.floor_db / 10)), np.float32)

    def finish(self, feature: np.ndarray) -> np.ndarray:
        return feature

    def pool(self, feature: np.ndarray) -> np.ndarray:
        return np.asarray(feature.mean(axis=0), np.float32)
