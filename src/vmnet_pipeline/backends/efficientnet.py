"""Picture features of EfficientNet B0-B7 and Lite0: the pooled head at one frame per second.

Source: Tan & Le (ICML 2019); tensorflow/tpu, models/official/efficientnet, for the preprocessing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vmnet_pipeline.backends import torch_weights, weights
from vmnet_pipeline.backends.engine import BackendParams, Framework, import_tensorflow
from vmnet_pipeline.backends.framing import BATCH_STEPS, batch_items
from vmnet_pipeline.backends.network_backend import NetworkBackend
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.media.pixels import PICTURE_RECIPE
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.types import Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


class EfficientnetParams(BackendParams):
    """Parameters of the `efficientnet` backend."""

    model: Literal["lite0", "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = Field(
        "lite0", description="Member of the family; b5 is what the published feature files are said to stem from."
    )
    rate_hz: float = Field(1.0, gt=0, le=240, description="Frames taken per second of video.")
    max_duration_s: float = Field(60.0, gt=0, le=36_000, description="Length of the window; later video is ignored.")


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


class EfficientnetBackend(NetworkBackend):
    """(T, D) float32 per item, one row per frame; D is 1280 for lite0 and b0, 2048 for b5."""

    name: ClassVar[str] = "efficientnet"
    modality: ClassVar[Modality] = "video"
    params_type: ClassVar[type[BackendParams]] = EfficientnetParams
    network_settings: ClassVar[tuple[str, ...]] = ("model", "mean", "std")

    @property
    def weights_name(self) -> str:
        """See `NetworkBackend`."""
        return f"efficientnet-{self.params.model}"

    @property
    def step_s(self) -> float:
        """See `NetworkBackend`."""
        return 1.0 / float(self.params.rate_hz)

    @property
    def framework(self) -> Framework:
        """See `NetworkBackend`; Keras has all but Lite0."""
        return "torch" if self.params.model == "lite0" else "tensorflow"

    @property
    def _size_px(self) -> int:
        return SIZES_PX[self.params.model]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """See `NetworkBackend`."""
        return (self._size_px, self._size_px, 3)

    def describe_settings(self) -> dict[str, Any]:
        """See `NetworkBackend`."""
        mean, std = get_normalization(self.params.model)
        return {
            "model": self.params.model,
            "rate_hz": self.params.rate_hz,
            "max_duration_s": self.params.max_duration_s,
            "decoder": f"ffmpeg, one clock, picture on screen at t; {PICTURE_RECIPE}",
            "front_end": f"centre crop padding {CROP_PADDING}, pillow bicubic antialiased to {self._size_px} px",
            "mean": list(mean),
            "std": list(std),
        }

    def build_network(self) -> Any:
        """See `NetworkBackend`; takes (B, size, size, 3) RGB in 0-255 and normalises inside."""
        path: Path | None = None
        if self.params.weights == "pretrained":
            (path,) = weights.resolve_weights(self.weights_name, self._weights_dir).paths
        return self._build_lite(path) if self.framework == "torch" else self._build_keras(path)

    def _build_keras(self, path: Path | None) -> Any:
        import_tensorflow()
        from vmnet_pipeline.backends.networks.efficientnet_keras import build_network, normalize_inputs

        network = build_network(self.params.model, self._size_px, path, self.params.random_seed)
        return normalize_inputs(network, self._size_px, *get_normalization(self.params.model))

    def _build_lite(self, path: Path | None) -> Any:
        from vmnet_pipeline.backends.networks.efficientnet_lite import EfficientNetLite, NormalizedLite, rename_state

        network = torch_weights.build_seeded(EfficientNetLite, self.params.random_seed)
        if path is not None:
            try:
                state = rename_state(torch_weights.load_torch_file(path))
            except KeyError as error:
                raise WeightsError(f"{path}: layer {error} does not belong to this network") from error
            torch_weights.load_state(network, state, self.weights_name)
        return NormalizedLite(network, *get_normalization(self.params.model))

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`; inputs are (T, size, size, 3) uint8, a quarter of what floats would take."""
        warnings: list[str] = []
        window_s = self.params.max_duration_s
        frames = sample_frames(path, rate_hz=self.params.rate_hz, max_duration_s=window_s, warnings=warnings)
        pictures = np.stack([crop_and_resize(picture, self._size_px) for _, picture in frames])
        return PreparedItem(pictures, len(pictures), tuple(warnings))

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """See `whole_file.WholeFileBackend`; the pictures of the whole file."""
        warnings: list[str] = []
        frames = sample_frames(path, rate_hz=self.params.rate_hz, max_duration_s=None, warnings=warnings)
        for batch in batch_items((picture for _, picture in frames), BATCH_STEPS):
            pictures = np.stack([crop_and_resize(picture, self._size_px) for picture in batch])
            yield PreparedItem(pictures, len(pictures))
        yield PreparedItem(np.empty((0, *self.input_shape), np.uint8), 0, tuple(warnings))
