"""Base class of the backends: one network behind a front end. A new backend is a subclass in its own file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vmnet_pipeline.backends import engine, weights
from vmnet_pipeline.backends.converted import ConvertedModels
from vmnet_pipeline.backends.runners import build_runner
from vmnet_pipeline.types import Fingerprint, Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class NetworkBackend:
    """Base of the backends; a subclass defines its network, the inputs and the pooling of features.

    See `docs/adding-a-backend.md` for one from beginning to end.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality]
    params_type: ClassVar[type[engine.BackendParams]] = engine.BackendParams
    bf16_by_default: ClassVar[bool] = False
    pooled_ndim: ClassVar[int] = 1
    network_settings: ClassVar[tuple[str, ...]] = ()  # which of `describe_settings` decide the network itself

    def __init__(
        self, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = weights.DEFAULT_WEIGHTS_DIR
    ) -> None:
        self.params: Any = self.params_type(**(params or {}))
        self._weights_dir = weights_dir
        self._run: Callable[[np.ndarray], np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}  # workers load for themselves

    # --- what a subclass gives

    @property
    def weights_name(self) -> str:
        """Name of the pretrained weights in the table."""
        raise NotImplementedError

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one network input."""
        raise NotImplementedError

    @property
    def step_s(self) -> float | None:
        """Seconds from one entry of a feature to the next; None if re-ranking must not cut it into pieces."""
        return None

    @property
    def framework(self) -> engine.Framework:
        """What the network is written in."""
        return "torch"

    def describe_settings(self) -> dict[str, Any]:
        """Everything that changes a feature's numbers besides weights and engine: window, front end, layer, ..."""
        raise NotImplementedError

    def build_network(self) -> Any:
        """The network with its weights, a torch module or a Keras model.

        Raises:
            WeightsError: The weights are not available, or are damaged.
        """
        raise NotImplementedError

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`."""
        raise NotImplementedError

    def pool_entries(self, feature: np.ndarray) -> np.ndarray:
        """One item's feature, (T, ...), to the form that training uses; the mean over time unless overridden."""
        return np.asarray(feature.mean(axis=0, dtype=np.float64), np.float32)

    # --- what follows from it

    def _choose_engine(self) -> engine.EngineChoice:
        wanted, bf16 = (self.params.engine, self.params.precision), self.bf16_by_default
        return engine.choose_engine(*wanted, bf16_by_default=bf16, framework=self.framework)

    def _identify_weights(self) -> dict[str, Any]:
        params = self.params
        return weights.identify_weights(params.weights, params.random_seed, self.weights_name, self._weights_dir)

    def fingerprint(self) -> Fingerprint:
        """See `FeatureBackend.fingerprint`; the stored form is part of it where it is not the usual one."""
        choice, params = self._choose_engine(), self.params
        stored = {"dtype": params.dtype} if params.dtype != "float32" else {}
        stored |= {"pooled": True} if params.pooled else {}
        weights_identity = self._identify_weights()
        settings = {**self.describe_settings(), "weights": weights_identity, **choice.describe(), **stored}
        return Fingerprint(self.name, settings)

    def load(self) -> None:
        """See `FeatureBackend.load`."""
        if self._run is not None:
            return
        choice = self._choose_engine()
        engine.check_gpu_idx(self.params.gpu_idx, choice)
        self._run = build_runner(self.build_network, self.input_shape, choice, self.params, self.converted)

    @property
    def converted(self) -> ConvertedModels:
        """Where the network converted for OpenVINO is kept."""
        settings = self.describe_settings()
        identity = {"backend": self.name, "weights": self._identify_weights()}
        identity |= {name: settings[name] for name in self.network_settings if name in settings}
        return ConvertedModels(self._weights_dir, identity)

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.infer`."""
        if self._run is None:
            raise RuntimeError(f"backend {self.name!r}: call load() before infer()")
        return self._run(inputs)

    def finish(self, feature: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.finish`."""
        form = self.pool_entries(feature) if self.params.pooled else feature
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, which extraction refuses
            return np.ascontiguousarray(form, self.params.dtype)

    def pool(self, feature: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.pool`; a feature that was stored pooled passes as it is."""
        if feature.ndim == self.pooled_ndim:
            return np.asarray(feature, np.float32)
        return self.pool_entries(feature)
