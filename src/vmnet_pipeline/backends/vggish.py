"""Music features of VGGish's convolutions (Hershey et al., 2017), fully connected layers cut.

Source: tensorflow/models, research/audioset/vggish, for the front end; harritaylor/torchvggish for the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vmnet_pipeline.backends import engine, spectra, weights
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.media.audio import decode_audio
from vmnet_pipeline.records import Fingerprint, Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vmnet_pipeline.backends.networks.vggish import VggishConvolutions

SAMPLE_RATE_HZ = 16_000
FRAME = 400
HOP = 160
N_FFT = 512
N_MELS = 64
LOW_HZ = 125.0
HIGH_HZ = 7_500.0
LOG_OFFSET = 0.01
PATCH_FRAMES = 96
WEIGHTS_NAME = "vggish"


class VggishParams(engine.BackendParams):
    """Parameters of the `vggish` backend."""

    max_duration_s: float = Field(60.0, ge=1.0, le=36_000, description="Window; all features cover exactly this long.")
    short_audio: Literal["loop", "zero", "mask"] = Field(
        "loop",
        description="Sound shorter than the window: play it again until the window is full, append silence, or keep "
        "only the patches that are there (pooling then appends zero rows, and the valid length tells which).",
    )


def count_patches(n_samples: int) -> int:
    """How many full patches of 96 frames that many samples give; 960,000 give 62."""
    return max(0, 1 + (n_samples - FRAME) // HOP) // PATCH_FRAMES


def count_samples(n_patches: int) -> int:
    """Fewest samples that give so many patches."""
    return (n_patches * PATCH_FRAMES - 1) * HOP + FRAME


def measure_log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram as VGGish was trained on: magnitudes, HTK mel, no centring.

    Args:
        samples: (n,) float mono at 16 kHz in [-1, 1].

    Returns:
        (1 + (n - 400) // 160, 64) float32, >= ln 0.01: ln(mel + 0.01).
    """
    filters = spectra.build_htk_filters(SAMPLE_RATE_HZ, N_FFT, N_MELS, LOW_HZ, HIGH_HZ)
    mel = spectra.measure_mel(samples, filters, frame=FRAME, hop=HOP, n_fft=N_FFT, spectrum=np.abs)
    return np.asarray(np.log(mel + LOG_OFFSET), np.float32)


def fill_window(samples: np.ndarray, n_window: int, short_audio: str) -> np.ndarray:
    """Bring sound to the window's length.

    Args:
        samples: (n,) float, n >= 1.
        n_window: Samples in the window.
        short_audio: `loop` | `zero` | `mask`.

    Returns:
        (n_window,) samples; with `mask` at most so many, and at least one patch.
    """
    if len(samples) >= n_window:
        return samples[:n_window]
    if short_audio == "loop":
        return np.resize(samples, n_window)
    n_wanted = n_window if short_audio == "zero" else max(len(samples), count_samples(1))
    return np.pad(samples, (0, n_wanted - len(samples)))


def cut_patches(samples: np.ndarray) -> np.ndarray:
    """(n_patches, 96, 64) float32 log-mel patches of 0.96 s without overlap; incomplete ones are dropped."""
    log_mel = measure_log_mel(samples)
    n_patches = len(log_mel) // PATCH_FRAMES
    return log_mel[: n_patches * PATCH_FRAMES].reshape(n_patches, PATCH_FRAMES, N_MELS)


class VggishBackend:
    """(62, 512, 6, 4) float32 per item, >= 0: (patch, channel, time, mel), one patch per 0.96 s."""

    name: ClassVar[str] = "vggish"
    modality: ClassVar[Modality] = "audio"

    def __init__(
        self, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = weights.DEFAULT_WEIGHTS_DIR
    ) -> None:
        self.params = VggishParams(**(params or {}))
        self._weights_dir = weights_dir
        self._run: Callable[[np.ndarray], np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}  # workers load for themselves

    @property
    def _n_window(self) -> int:
        return round(self.params.max_duration_s * SAMPLE_RATE_HZ)

    def fingerprint(self) -> Fingerprint:
        """See `FeatureBackend.fingerprint`."""
        params = self.params
        settings = {
            "max_duration_s": params.max_duration_s,
            "short_audio": params.short_audio,
            "decoder": "ffmpeg, channel mean, soxr HQ 16000 Hz",
            "front_end": "htk mel 64, 125-7500 Hz, frame 400, hop 160, fft 512, magnitude, ln(x + 0.01), 96 frames",
            "weights": weights.identify_weights(params.weights, params.random_seed, WEIGHTS_NAME, self._weights_dir),
            **engine.choose_engine(params.engine, params.precision, bf16_by_default=True).describe(),
        }
        return Fingerprint(self.name, settings)

    def load(self) -> None:
        """See `FeatureBackend.load`."""
        if self._run is not None:
            return
        choice = engine.choose_engine(self.params.engine, self.params.precision, bf16_by_default=True)
        self._run = engine.build_runner(self.build_network(), (PATCH_FRAMES, N_MELS), choice, self.params)

    def build_network(self) -> VggishConvolutions:
        """The torch network with its weights.

        Raises:
            WeightsError: The weights are not to be had or are damaged.
        """
        from vmnet_pipeline.backends.networks.vggish import VggishConvolutions, pick_state

        network = engine.build_seeded(VggishConvolutions, self.params.random_seed)
        if self.params.weights == "pretrained":
            resolved = weights.resolve_weights(WEIGHTS_NAME, self._weights_dir)
            try:
                state = pick_state(engine.load_torch_file(resolved.paths[0]))
            except KeyError as error:
                raise WeightsError(f"{resolved.paths[0]}: tensor {error} is missing") from error
            engine.load_state(network, state, WEIGHTS_NAME)
        return network

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`; inputs are (62, 96, 64) float32; `n_valid` counts patches of real sound."""
        samples = decode_audio(path, sample_rate_hz=SAMPLE_RATE_HZ, max_duration_s=self.params.max_duration_s)
        patches = cut_patches(fill_window(samples, self._n_window, self.params.short_audio))
        return PreparedItem(patches, max(1, min(count_patches(len(samples)), len(patches))))

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.infer`; (m, 96, 64) to (m, 512, 6, 4)."""
        return engine.require_loaded(self._run, self.name)(inputs)

    def pool(self, feature: np.ndarray) -> np.ndarray:
        """(n, 512, 6, 4) to (62, 512) float32: mean over time and mel of each patch; zero rows for missing patches."""
        means = feature.mean(axis=(2, 3), dtype=np.float64)
        n_missing = max(0, count_patches(self._n_window) - len(means))
        return np.asarray(np.pad(means, ((0, n_missing), (0, 0))), np.float32)
