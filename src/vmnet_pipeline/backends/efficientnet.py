"""Picture features of EfficientNet B0-B7 and Lite0: the pooled head at one frame per second.

Source: Tan & Le (ICML 2019); tensorflow/tpu, models/official/efficientnet, for the preprocessing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vmnet_pipeline.backends import engine, weights
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.records import Fingerprint, Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vmnet_pipeline.backends.networks.efficientnet import NormalizedEfficientNet

CROP_PADDING = 32
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
LITE_MEAN = (127.0, 127.0, 127.0)
LITE_STD = (128.0, 128.0, 128.0)
SIZES_PX = {
    "lite0": 224,
    "b0": 224,
    "b1": 240,
    "b2": 260,
    "b3": 300,
    "b4": 380,
    "b5": 456,
    "b6": 528,
    "b7": 600,
}


class EfficientnetParams(engine.BackendParams):
    """Parameters of the `efficientnet` backend."""

    model: Literal["lite0", "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = Field(
        "lite0", description="Member of the family; b5 is what the published feature files are said to stem from."
    )
    rate_hz: float = Field(1.0, gt=0, le=240, description="Frames taken per second of video.")
    max_duration_s: float = Field(60.0, gt=0, le=36_000, description="Video after this is not looked at.")


def crop_and_resize(picture: np.ndarray, size_px: int) -> np.ndarray:
    """Centre crop with crop padding 32, then bicubic resize with antialiasing (Pillow, 8 bit).

    Args:
        picture: (H, W, 3) uint8 RGB.
        size_px: Wanted side; the crop's side is size / (size + 32) of the shorter side.

    Returns:
        (size_px, size_px, 3) uint8.
    """
    from PIL import Image

    height, width = picture.shape[:2]
    side = max(1, int(size_px / (size_px + CROP_PADDING) * min(height, width)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    crop = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(crop.resize((size_px, size_px), Image.Resampling.BICUBIC))


def get_normalization(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per colour, on the scale 0-255, that a network expects to be taken out."""
    return (LITE_MEAN, LITE_STD) if model.startswith("lite") else (IMAGENET_MEAN, IMAGENET_STD)


def read_keras_file(path: Path) -> dict[str, np.ndarray]:
    """Variables of a Keras HDF5 weight file, `layer/kind` -> array.

    Raises:
        WeightsError: The file is damaged.
    """
    import h5py  # type: ignore[import-untyped, unused-ignore]

    variables: dict[str, np.ndarray] = {}

    def collect(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            *_, layer, kind = name.removesuffix(":0").split("/")
            variables[f"{layer}/{kind.removesuffix(':0')}"] = node[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except OSError as error:
        raise WeightsError(f"{path}: not a readable HDF5 file ({error}); delete it and fetch it again") from error
    return variables


class EfficientnetBackend:
    """(T, D) float32 per item, one row per frame; D is 1280 for lite0 and b0, 2048 for b5."""

    name: ClassVar[str] = "efficientnet"
    modality: ClassVar[Modality] = "video"

    def __init__(
        self, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = weights.DEFAULT_WEIGHTS_DIR
    ) -> None:
        self.params = EfficientnetParams(**(params or {}))
        self._weights_dir = weights_dir
        self._run: Callable[[np.ndarray], np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}  # workers load for themselves

    @property
    def _size_px(self) -> int:
        return SIZES_PX[self.params.model]

    @property
    def _weights_name(self) -> str:
        return f"efficientnet-{self.params.model}"

    def fingerprint(self) -> Fingerprint:
        """See `FeatureBackend.fingerprint`."""
        params = self.params
        mean, std = get_normalization(params.model)
        identity = weights.identify_weights(params.weights, params.random_seed, self._weights_name, self._weights_dir)
        settings = {
            "model": params.model,
            "rate_hz": params.rate_hz,
            "max_duration_s": params.max_duration_s,
            "decoder": "ffmpeg, picture on screen at t",
            "front_end": f"centre crop padding {CROP_PADDING}, pillow bicubic antialiased to {self._size_px} px",
            "mean": list(mean),
            "std": list(std),
            "weights": identity,
            **engine.choose_engine(params.engine, params.precision, bf16_by_default=False).describe(),
        }
        return Fingerprint(self.name, settings)

    def load(self) -> None:
        """See `FeatureBackend.load`."""
        if self._run is not None:
            return
        choice = engine.choose_engine(self.params.engine, self.params.precision, bf16_by_default=False)
        shape = (self._size_px, self._size_px, 3)
        self._run = engine.build_runner(self.build_network(), shape, choice, self.params)

    def build_network(self) -> NormalizedEfficientNet:
        """The torch network with its weights.

        Raises:
            WeightsError: The weights are not to be had or are damaged.
        """
        from vmnet_pipeline.backends.networks.efficientnet import VARIANTS, EfficientNet, NormalizedEfficientNet

        variant = VARIANTS[self.params.model]
        network = engine.build_seeded(lambda: EfficientNet(variant), self.params.random_seed)
        if self.params.weights == "pretrained":
            engine.load_state(network, self._read_state(), self._weights_name)
        return NormalizedEfficientNet(network, *get_normalization(self.params.model))

    def _read_state(self) -> dict[str, Any]:
        from vmnet_pipeline.backends.networks.efficientnet import VARIANTS
        from vmnet_pipeline.backends.networks.efficientnet_weights import read_keras_state, rename_torch_state

        (path,) = weights.resolve_weights(self._weights_name, self._weights_dir).paths
        try:
            if path.suffix == ".h5":
                return read_keras_state(VARIANTS[self.params.model], read_keras_file(path))
            return rename_torch_state(engine.load_torch_file(path))
        except KeyError as error:
            raise WeightsError(f"{path}: tensor {error} is missing") from error

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`; inputs are (T, size, size, 3) uint8, a quarter of what floats would take."""
        frames = sample_frames(path, rate_hz=self.params.rate_hz, max_duration_s=self.params.max_duration_s)
        pictures = np.stack([crop_and_resize(picture, self._size_px) for _, picture in frames])
        return PreparedItem(pictures, len(pictures))

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.infer`; (m, size, size, 3) uint8 to (m, D)."""
        return engine.require_loaded(self._run, self.name)(inputs)

    def pool(self, feature: np.ndarray) -> np.ndarray:
        """(T, D) to (D,) float32: mean over time."""
        return np.asarray(feature.mean(axis=0, dtype=np.float64), np.float32)
