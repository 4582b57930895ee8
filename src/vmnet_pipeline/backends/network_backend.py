"""Base class of the backends: one network behind a front end. A new backend is a subclass in its own file."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vmnet_pipeline.backends import calibration, engine, weights
from vmnet_pipeline.backends.converted import ConvertedModels
from vmnet_pipeline.backends.processor import read_processor
from vmnet_pipeline.backends.runners import build_runner
from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.types import Fingerprint, Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)


class NetworkBackend:
    """Base of the backends; a subclass defines its network, the inputs and the pooling of features.

    See `docs/adding-a-backend.md` for one from beginning to end.
    """

    name: ClassVar[str]
    modality: ClassVar[Modality]
    params_type: ClassVar[type[engine.BackendParams]] = engine.BackendParams
    pooled_ndim: ClassVar[int] = 1
    network_settings: ClassVar[tuple[str, ...]] = ()  # which of `describe_settings` decide the network itself

    def __init__(
        self, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = weights.DEFAULT_WEIGHTS_DIR
    ) -> None:
        self.params: Any = self.params_type(**(params or {}))
        self._weights_dir = weights_dir
        self._run: Callable[[np.ndarray], np.ndarray] | None = None
        self._decided: str | None = None  # of `precision: auto`; workers get it with the backend

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

    def make_examples(self) -> list[np.ndarray]:
        """Inputs of some made items, (n, *input_shape) each, to measure precisions on; without any, `auto` is f32.

        Only where the cosine on them has been seen to tell that on real media.
        """
        return []

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`."""
        raise NotImplementedError

    def pool_entries(self, feature: np.ndarray) -> np.ndarray:
        """One item's feature, (T, ...), to the form that training uses; the mean over time unless overridden."""
        return np.asarray(feature.mean(axis=0, dtype=np.float64), np.float32)

    # --- what follows from it

    def _choose_engine(self) -> engine.EngineChoice:
        choice = engine.choose_engine(self.params.engine, self.params.precision, framework=self.framework)
        if self.params.precision != "auto":
            return choice
        if self._decided is None:
            measured = self._calibrate(choice)
            self._decided = measured.precision if measured else choice.precision
        decided = replace(choice, precision=self._decided)
        engine.check_precision(decided)  # a worker elsewhere may not have what the driver decided
        return decided

    def _calibrate(self, choice: engine.EngineChoice) -> calibration.Calibration | None:
        """What is measured of this network on this kind of processor; None where there is nothing to choose from."""
        is_pretrained = self.params.weights == "pretrained"
        if choice.engine != "openvino" or not is_pretrained or len(calibration.list_precisions()) == 1:
            return None
        if type(self).make_examples is NetworkBackend.make_examples:
            return None
        kind = calibration.name_processor(self.params.n_threads or count_cores())
        return calibration.recall_or_measure(
            self.converted.place_beside(kind + calibration.SUFFIX), lambda: self._measure_precisions(choice)
        )

    def _measure_precisions(self, choice: engine.EngineChoice) -> calibration.Calibration:
        def build(precision: str) -> Callable[[np.ndarray], np.ndarray]:
            own = replace(choice, precision=precision)
            return build_runner(self.build_network, self.input_shape, own, self.params, self.converted)

        found = calibration.measure_precisions(build, self.make_examples(), self.pool_entries)
        network = self.name if self.name == self.weights_name else f"{self.name} {self.weights_name}"
        n_threads = self.params.n_threads or count_cores()
        return calibration.Calibration(network, read_processor().model, n_threads, *found)

    def follow(self, stored: Fingerprint) -> None:
        """Go on in the precision of stored features where `precision: auto` would choose another one here.

        A store keeps one precision for ever. It stays a difference that is refused where this machine does not have
        that precision.
        """
        kept = stored.settings.get("precision")
        if self.params.precision != "auto" or stored.backend != self.name or kept == self._decided:
            return
        choice = engine.choose_engine(self.params.engine, "auto", framework=self.framework)
        if kept not in calibration.list_precisions() or choice.engine != stored.settings.get("engine"):
            return
        measured = self._calibrate(choice)
        self._decided = str(kept)
        if measured is not None and measured.precision != kept:
            logger.info(
                "%s: the store holds features in %s, so this run goes on in %s; %s would be %.2f times as fast here, "
                "in another collection or save_dir",
                *(self.name, kept, kept, measured.precision, measured.measure_gain(str(kept))),
            )

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
