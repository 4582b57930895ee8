"""What both descriptor backends share: one row of numbers per item, no network and no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vmnet_pipeline.backends.weights import DEFAULT_WEIGHTS_DIR
from vmnet_pipeline.types import Fingerprint, Modality

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class DescriptorParams(BaseModel):
    """Parameters that both descriptor backends have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["pretrained", "random"] = Field("pretrained", description="Of no effect: there are none.")
    gpu_idx: int | None = Field(None, ge=0, description="Of no effect: the processor makes these numbers.")


class DescriptorBackend:
    """Base of both; a subclass describes one file in `prepare`."""

    name: ClassVar[str]
    modality: ClassVar[Modality]
    params_type: ClassVar[type[DescriptorParams]] = DescriptorParams

    def __init__(
        self, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = DEFAULT_WEIGHTS_DIR
    ) -> None:
        self.params: Any = self.params_type(**(params or {}))

    def describe_settings(self) -> dict[str, Any]:
        """Everything that changes a number: window, decoder, versions of the formulas and of libraries."""
        raise NotImplementedError

    def import_libraries(self) -> None:
        """Import what `prepare` needs; a process that decodes calls it before it limits memory for a file."""
        raise NotImplementedError

    def fingerprint(self) -> Fingerprint:
        """See `FeatureBackend.fingerprint`."""
        return Fingerprint(self.name, self.describe_settings())

    def load(self) -> None:
        """See `FeatureBackend.load`; there is nothing to load."""

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.infer`: the numbers are made in `prepare`."""
        return inputs

    def finish(self, feature: np.ndarray) -> np.ndarray:
        """(1, D) to (D,) float32."""
        return np.ascontiguousarray(feature[0], np.float32)

    def pool(self, feature: np.ndarray) -> np.ndarray:
        """(D,) as it is; (T, D), of the pieces of a whole file, to their mean (D,)."""
        array = np.asarray(feature, np.float32)
        return array if array.ndim == 1 else array.mean(axis=0)
