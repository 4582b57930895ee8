"""Music features of VGGish's convolutions (Hershey et al., 2017), fully connected layers cut.

Source: tensorflow/models, research/audioset/vggish, for the front end; harritaylor/torchvggish for the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vmnet_pipeline.backends import spectra, torch_weights, weights
from vmnet_pipeline.backends.engine import BackendParams
from vmnet_pipeline.backends.example_music import make_music
from vmnet_pipeline.backends.framing import BATCH_STEPS, cut_windows
from vmnet_pipeline.backends.network_backend import NetworkBackend
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.media.audio import decode_audio, stream_audio
from vmnet_pipeline.types import Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class VggishParams(BackendParams):
    """Parameters of the `vggish` backend."""

    max_duration_s: float = Field(60.0, ge=1.0, le=36_000, description="Window; all features cover exactly this long.")
    short_audio: Literal["loop", "zero", "mask"] = Field(
        "loop",
        description="Audio shorter than the window: play it again until the window is full, append silence, or keep "
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


class VggishBackend(NetworkBackend):
    """(62, 512, 6, 4) float32 per item, >= 0: (patch, channel, time, mel), one patch per 0.96 s."""

    name: ClassVar[str] = "vggish"
    modality: ClassVar[Modality] = "audio"
    params_type: ClassVar[type[BackendParams]] = VggishParams
    pooled_ndim: ClassVar[int] = 2
    weights_name = WEIGHTS_NAME
    input_shape = (PATCH_FRAMES, N_MELS)
    step_s = PATCH_FRAMES * HOP / SAMPLE_RATE_HZ

    @property
    def _n_window(self) -> int:
        return int(self.params.max_duration_s * SAMPLE_RATE_HZ + 0.5)

    def describe_settings(self) -> dict[str, Any]:
        """See `NetworkBackend`."""
        return {
            "max_duration_s": self.params.max_duration_s,
            "short_audio": self.params.short_audio,
            "decoder": "ffmpeg, one clock, channel mean or the loudest if they cancel, soxr HQ 16000 Hz",
            "front_end": "htk mel 64, 125-7500 Hz, frame 400, hop 160, fft 512, magnitude, ln(x + 0.01), 96 frames",
        }

    def build_network(self) -> VggishConvolutions:
        """See `NetworkBackend`."""
        from vmnet_pipeline.backends.networks.vggish import VggishConvolutions, pick_state

        network = torch_weights.build_seeded(VggishConvolutions, self.params.random_seed)
        if self.params.weights == "pretrained":
            resolved = weights.resolve_weights(WEIGHTS_NAME, self._weights_dir)
            try:
                state = pick_state(torch_weights.load_torch_file(resolved.paths[0]))
            except KeyError as error:
                raise WeightsError(f"{resolved.paths[0]}: tensor {error} is missing") from error
            torch_weights.load_state(network, state, WEIGHTS_NAME)
        return network

    def make_examples(self) -> list[np.ndarray]:
        """See `NetworkBackend`; 8 patches of each of 3 pieces of music."""
        return [cut_patches(make_music(count_samples(8), SAMPLE_RATE_HZ, seed)) for seed in range(3)]

    def import_libraries(self) -> None:
        """See `spectra.import_libraries`."""
        spectra.import_libraries()

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`; inputs are (62, 96, 64) float32; `n_valid` counts patches of real sound."""
        warnings: list[str] = []
        window_s = self.params.max_duration_s
        samples = decode_audio(path, sample_rate_hz=SAMPLE_RATE_HZ, max_duration_s=window_s, warnings=warnings)
        patches = cut_patches(fill_window(samples, self._n_window, self.params.short_audio))
        n_valid = max(1, min(count_patches(len(samples)), len(patches)))
        return PreparedItem(patches, n_valid, tuple(warnings))

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """See `whole_file.WholeFileBackend`; the patches of the whole file."""
        warnings: list[str] = []
        blocks = stream_audio(path, sample_rate_hz=SAMPLE_RATE_HZ, warnings=warnings)
        n_patches, signal = 0, np.zeros(1, np.float32)
        for signal in cut_windows(blocks, count_samples(BATCH_STEPS), BATCH_STEPS * PATCH_FRAMES * HOP):
            patches = cut_patches(signal)
            n_patches += len(patches)
            yield PreparedItem(patches, len(patches))
        if not n_patches:  # shorter than one patch
            yield PreparedItem(cut_patches(fill_window(signal, count_samples(1), self.params.short_audio)), 1)
        yield PreparedItem(np.empty((0, PATCH_FRAMES, N_MELS), np.float32), 0, tuple(warnings))

    def reduce_steps(self, feature: np.ndarray) -> np.ndarray:
        """(n, 512, 6, 4) to (n, 512): what is kept of each patch of a whole file."""
        return average_patches(feature)

    def pool_entries(self, feature: np.ndarray) -> np.ndarray:
        """(n, 512, 6, 4) to (62, 512) float32: mean over time and mel of each patch; zero rows for missing patches."""
        means = average_patches(feature)
        n_missing = max(0, count_patches(self._n_window) - len(means))
        return np.asarray(np.pad(means, ((0, n_missing), (0, 0))), np.float32)


def average_patches(feature: np.ndarray) -> np.ndarray:
    """(n, C, time, mel) to (n, C) float64: the mean of each patch, summed in double precision."""
    return np.asarray(feature.mean(axis=(2, 3), dtype=np.float64))
