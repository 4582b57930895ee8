"""Several backends of one side: their features of an item are pooled and put side by side in one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vmnet_pipeline.backends.calibration import follow_stored
from vmnet_pipeline.backends.registry import make_backend
from vmnet_pipeline.types import JOINT_SIGN, FeaturePart, Fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.types import Modality


class JointBackend:
    """Several backends of one modality. A feature is one array per backend.

    Attributes:
        parts: The backends, in the order of their parts of the vector.
        name: All of their names.
        modality: Theirs.
    """

    def __init__(self, parts: Sequence[FeatureBackend]) -> None:
        self.parts = tuple(parts)
        self.name = JOINT_SIGN.join(part.name for part in parts)
        self.modality: Modality = parts[0].modality

    @property
    def step_s(self) -> float | None:
        """Seconds between the entries of the first backend that tells them; None where none does."""
        return next((step_s for part in self.parts if (step_s := getattr(part, "step_s", None))), None)

    def fingerprint(self) -> Fingerprint:
        """Identity of the joint features; see `FeatureBackend.fingerprint`."""
        return Fingerprint.join([part.fingerprint() for part in self.parts])

    def follow(self, stored: Fingerprint) -> None:
        """See `NetworkBackend.follow`."""
        kept = {part.backend: part for part in stored.parts}
        for part in self.parts:
            follow_stored(part, kept.get(part.name))

    def load(self) -> None:
        """See `FeatureBackend.load`."""
        for part in self.parts:
            part.load()

    def pool(self, feature: Sequence[np.ndarray]) -> np.ndarray:
        """The stored features of one item to one vector, (D,)."""
        return np.concatenate(self._pool_parts(feature))

    def measure(self, feature: Sequence[np.ndarray]) -> tuple[FeaturePart, ...]:
        """The parts of that vector."""
        pooled = self._pool_parts(feature)
        return tuple(FeaturePart(part.name, len(vector)) for part, vector in zip(self.parts, pooled, strict=True))

    def _pool_parts(self, feature: Sequence[np.ndarray]) -> list[np.ndarray]:
        """One vector per backend; what is pooled to patches, (T, C), is averaged over them."""
        pooled = [np.asarray(part.pool(own)) for part, own in zip(self.parts, feature, strict=True)]
        return [own if own.ndim == 1 else own.mean(axis=0) for own in pooled]


def join_backends(params: Sequence[Mapping[str, Any]]) -> FeatureBackend | JointBackend:
    """The backends with these parameters, as `make_backend` takes them; of one mapping the backend itself.

    Raises:
        ParameterError: Unknown backend, or a parameter it does not have.
    """
    backends = [make_backend(own) for own in params]
    return backends[0] if len(backends) == 1 else JointBackend(backends)


def list_parts(backend: FeatureBackend | JointBackend) -> tuple[FeatureBackend, ...]:
    """The backends of a side."""
    return backend.parts if isinstance(backend, JointBackend) else (backend,)
