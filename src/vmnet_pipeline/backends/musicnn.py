"""Music features of musicnn (Pons & Serra, 2019).

Source: https://github.com/jordipons/musicnn, for the front end and the published weights.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

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

    from vmnet_pipeline.backends.networks.musicnn import MusicnnNetwork
    from vmnet_pipeline.backends.networks.musicnn_vgg import MusicnnVggNetwork

SAMPLE_RATE_HZ = 16_000
N_FFT = 512
HOP = 256
N_MELS = 96
PATCH_FRAMES = 187
LOG_SCALE = 10_000.0
# (filters of the mid-end, units of the penultimate layer)
SIZES = {"MSD_musicnn": (64, 200), "MTT_musicnn": (64, 200), "MSD_musicnn_big": (512, 500)}
VGG_MODELS = ("MSD_vgg", "MTT_vgg")
VGG_LAYERS = ("penultimate", "taggram")


class MusicnnParams(BackendParams):
    """Parameters of the `musicnn` backend."""

    model: Literal["MSD_musicnn", "MTT_musicnn", "MSD_musicnn_big", "MSD_vgg", "MTT_vgg"] = Field(
        "MSD_musicnn",
        description="Pretrained model; the big one is fetched from its authors' repository. `_vgg` are the VGG "
        "networks of the same package.",
    )
    layer: Literal["penultimate", "max_pool", "mean_pool", "mean_max_add", "taggram"] = Field(
        "penultimate",
        description="Which activation is the feature; mean_max_add is max_pool + mean_pool. `_vgg` models have "
        "penultimate (256 values, the package's pool5) and taggram.",
    )
    vgg_pooling: Literal["trained", "package"] = Field(
        "trained",
        description="Of MSD_vgg: its maxima as in the graph it was trained in (4x1, 1x4, ...), or as the package's "
        "extractor runs it (as MTT_vgg).",
    )
    max_duration_s: float = Field(300.0, gt=0, le=36_000, description="Length of the window; later audio is ignored.")
    short_audio: Literal["repeat", "zero"] = Field(
        "repeat",
        description="Audio shorter than one patch (3 s): repeat it, or append zero frames as the reference does.",
    )

    @model_validator(mode="after")
    def _check_layer(self) -> MusicnnParams:
        if self.model in VGG_MODELS and self.layer not in VGG_LAYERS:
            raise ValueError(f"model {self.model} has no layer {self.layer}; choose {' or '.join(VGG_LAYERS)}")
        return self


def measure_log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram as musicnn was trained on.

    The product with 10,000 is taken in float64: in float16 it overflows above 6.55.

    Returns:
        (1 + n // 256, 96) float32, >= 0: log10(10000 mel + 1).
    """
    return measure_framed(np.pad(samples, N_FFT // 2))


def measure_framed(padded: np.ndarray) -> np.ndarray:
    """The same of a signal with its margins, (n,): (1 + (n - 512) // 256, 96)."""
    filters = spectra.build_slaney_filters(SAMPLE_RATE_HZ, N_FFT, N_MELS)
    mel = spectra.measure_mel(padded, filters, frame=N_FFT, hop=HOP, n_fft=N_FFT, spectrum=spectra.take_power)
    return np.asarray(np.log10(LOG_SCALE * mel + 1.0), np.float32)


def cut_patches(samples: np.ndarray, short_audio: str = "repeat") -> np.ndarray:
    """Log-mel patches of 187 frames without overlap; the tail that fills no patch is dropped.

    Args:
        samples: (n,) float mono at 16 kHz, n >= 1.
        short_audio: `repeat` or `zero`, for sound that does not fill one patch.

    Returns:
        (n_patches, 187, 96) float32, n_patches >= 1.
    """
    n_needed = (PATCH_FRAMES - 1) * HOP
    if len(samples) < n_needed and short_audio == "repeat":
        samples = np.resize(samples, n_needed)
    log_mel = measure_log_mel(samples)
    if len(log_mel) < PATCH_FRAMES:
        log_mel = np.pad(log_mel, ((0, PATCH_FRAMES - len(log_mel)), (0, 0)))
    n_patches = len(log_mel) // PATCH_FRAMES
    return log_mel[: n_patches * PATCH_FRAMES].reshape(n_patches, PATCH_FRAMES, N_MELS)


class MusicnnBackend(NetworkBackend):
    """(T, D) float32 per item, one row per 3 s of sound; D is 200, 500 (big) or 256 (VGG), other for other layers."""

    name: ClassVar[str] = "musicnn"
    modality: ClassVar[Modality] = "audio"
    params_type: ClassVar[type[BackendParams]] = MusicnnParams
    network_settings: ClassVar[tuple[str, ...]] = ("model", "layer", "vgg_pooling")
    input_shape = (PATCH_FRAMES, N_MELS)
    step_s = PATCH_FRAMES * HOP / SAMPLE_RATE_HZ

    @property
    def weights_name(self) -> str:
        """See `NetworkBackend`."""
        return str(self.params.model)

    def describe_settings(self) -> dict[str, Any]:
        """See `NetworkBackend`."""
        pooling = {"vgg_pooling": self.params.vgg_pooling} if self.params.model == "MSD_vgg" else {}
        return {
            "model": self.params.model,
            "layer": self.params.layer,
            **pooling,
            "max_duration_s": self.params.max_duration_s,
            "short_audio": self.params.short_audio,
            "decoder": "ffmpeg, one clock, channel mean or the loudest if they cancel, soxr HQ 16000 Hz",
            "front_end": "slaney mel 96, fft 512, hop 256, power, centred zero pad, log10(10000 x + 1), 187 frames",
        }

    def build_network(self) -> MusicnnNetwork | MusicnnVggNetwork:
        """See `NetworkBackend`."""
        from vmnet_pipeline.backends.networks.musicnn import read_state
        from vmnet_pipeline.backends.tensorflow_checkpoint import read_checkpoint

        network = torch_weights.build_seeded(self._make_layers, self.params.random_seed)
        if self.params.weights == "pretrained":
            resolved = weights.resolve_weights(self.params.model, self._weights_dir)
            try:
                state = read_state(network, read_checkpoint(*resolved.paths))
            except KeyError as error:
                raise WeightsError(f"weights {self.params.model!r}: variable {error} is missing") from error
            torch_weights.load_state(network, state, self.params.model)
        return network

    def _make_layers(self) -> MusicnnNetwork | MusicnnVggNetwork:
        from vmnet_pipeline.backends.networks.musicnn import MusicnnNetwork
        from vmnet_pipeline.backends.networks.musicnn_vgg import POOLS, POOLS_OF_MSD_VGG, MusicnnVggNetwork

        if self.params.model in VGG_MODELS:
            as_trained = self.params.model == "MSD_vgg" and self.params.vgg_pooling == "trained"
            return MusicnnVggNetwork(self.params.layer, POOLS_OF_MSD_VGG if as_trained else POOLS)
        return MusicnnNetwork(*SIZES[self.params.model], self.params.layer)

    def make_examples(self) -> list[np.ndarray]:
        """See `NetworkBackend`; 4 patches of each of 3 pieces of music."""
        n_samples = 4 * PATCH_FRAMES * HOP
        return [cut_patches(make_music(n_samples, SAMPLE_RATE_HZ, seed), "repeat") for seed in range(3)]

    def import_libraries(self) -> None:
        """See `spectra.import_libraries`."""
        spectra.import_libraries()

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`; inputs are (T, 187, 96) float32."""
        warnings: list[str] = []
        window_s = self.params.max_duration_s
        samples = decode_audio(path, sample_rate_hz=SAMPLE_RATE_HZ, max_duration_s=window_s, warnings=warnings)
        patches = cut_patches(samples, self.params.short_audio)
        return PreparedItem(patches, len(patches), tuple(warnings))

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """See `whole_file.WholeFileBackend`; the same patches as those of `prepare`, of the whole file."""
        warnings: list[str] = []
        edge = np.zeros(N_FFT // 2, np.float32)
        blocks = chain([edge], stream_audio(path, sample_rate_hz=SAMPLE_RATE_HZ, warnings=warnings), [edge])
        n_frames, n_patches = BATCH_STEPS * PATCH_FRAMES, 0
        signal = edge
        for signal in cut_windows(blocks, (n_frames - 1) * HOP + N_FFT, n_frames * HOP):
            log_mel = measure_framed(signal)
            n_own = len(log_mel) // PATCH_FRAMES
            if n_own:
                patches = log_mel[: n_own * PATCH_FRAMES].reshape(n_own, PATCH_FRAMES, N_MELS)
                yield PreparedItem(patches, n_own)
            n_patches += n_own
        if not n_patches:  # shorter than one patch
            yield PreparedItem(cut_patches(signal[len(edge) : -len(edge)], self.params.short_audio), 1)
        yield PreparedItem(np.empty((0, PATCH_FRAMES, N_MELS), np.float32), 0, tuple(warnings))


class MusicnnTagsParams(MusicnnParams):
    """Parameters of the `musicnn_tags` backend: those of `musicnn` with other defaults."""

    model: Literal["MSD_musicnn", "MTT_musicnn", "MSD_musicnn_big", "MSD_vgg", "MTT_vgg"] = Field(
        "MTT_musicnn",
        description="Pretrained model; those of MagnaTagATune have the tags of instruments, tempo and voices.",
    )
    layer: Literal["penultimate", "max_pool", "mean_pool", "mean_max_add", "taggram"] = Field(
        "taggram", description="Words can only ask for tags of `taggram`, or of `penultimate` that is not pooled."
    )
    pooled: bool = Field(True, description="Store the mean over time, (50,), which is all that words need.")


class MusicnnTagsBackend(MusicnnBackend):
    """(50,) float32 per item, how likely each tag is: a second network for the search by words."""

    name: ClassVar[str] = "musicnn_tags"
    params_type: ClassVar[type[BackendParams]] = MusicnnTagsParams
