"""Numbers with names about the sound: loudness, rhythm, timbre and harmony; or those of the original VM-NET."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vmnet_pipeline.backends.descriptors import audio, vmnet2017
from vmnet_pipeline.backends.descriptors.backend import DescriptorBackend, DescriptorParams
from vmnet_pipeline.backends.framing import cut_windows
from vmnet_pipeline.media.audio import decode_audio, stream_audio
from vmnet_pipeline.types import Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPACT_VERSION = 1
VMNET2017_VERSION = 1
"""Raised by whoever changes a number."""


class AudioDescriptorParams(DescriptorParams):
    """Parameters of the `descriptors_audio` backend."""

    preset: Literal["compact", "vmnet2017"] = Field(
        "compact",
        description="`compact`: 47 numbers with names and words. `vmnet2017`: the 1,140 numbers of the original "
        "VM-NET, of the middle 29 s.",
    )
    max_duration_s: float = Field(300.0, gt=0, le=36_000, description="Length of the window; later audio is ignored.")


class AudioDescriptorBackend(DescriptorBackend):
    """(D,) float32 per item: 47 numbers of `compact`, 1,140 of `vmnet2017`."""

    name: ClassVar[str] = "descriptors_audio"
    modality: ClassVar[Modality] = "audio"
    params_type: ClassVar[type[DescriptorParams]] = AudioDescriptorParams

    @property
    def _preset(self) -> str:
        return str(self.params.preset)

    @property
    def _is_compact(self) -> bool:
        return self._preset == "compact"

    @property
    def _rate_hz(self) -> int:
        return audio.SAMPLE_RATE_HZ if self._is_compact else vmnet2017.SAMPLE_RATE_HZ

    def describe_settings(self) -> dict[str, Any]:
        """See `DescriptorBackend`."""
        made_by = (
            {"version": COMPACT_VERSION}
            if self._is_compact
            else {"version": VMNET2017_VERSION, "librosa": metadata.version("librosa")}
        )
        return {
            "preset": self._preset,
            **made_by,
            "max_duration_s": self.params.max_duration_s,
            "decoder": f"ffmpeg, one clock, channel mean or the loudest if they cancel, soxr HQ {self._rate_hz} Hz",
        }

    def load(self) -> None:
        """Import librosa where the preset is made with it."""
        if not self._is_compact:
            vmnet2017.import_librosa()

    def import_libraries(self) -> None:
        """See `DescriptorBackend`."""
        if self._is_compact:
            import scipy.fft
            import scipy.ndimage
            import scipy.signal  # noqa: F401

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`; inputs are (1, 47) numbers, or (1, 349440) samples for librosa.

        The process that decodes may write no file, so numba, which compiles parts of librosa, cannot work there.
        """
        warnings: list[str] = []
        window_s = self.params.max_duration_s
        samples = decode_audio(path, sample_rate_hz=self._rate_hz, max_duration_s=window_s, warnings=warnings)
        entry = self._describe(samples)
        return PreparedItem(entry[None], 1, tuple(warnings))

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """See `whole_file.WholeFileBackend`; one entry per piece."""
        warnings: list[str] = []
        blocks = stream_audio(path, sample_rate_hz=self._rate_hz, warnings=warnings)
        for samples in cut_windows(blocks, round(window_s * self._rate_hz), round(hop_s * self._rate_hz)):
            entry = self._describe(samples)
            yield PreparedItem(entry[None], 1)
        yield PreparedItem(np.empty((0, 1), np.float32), 0, tuple(warnings))

    def _describe(self, samples: np.ndarray) -> np.ndarray:
        """The numbers, or the samples that they are made of."""
        if not self._is_compact:
            return vmnet2017.take_middle(samples)
        return audio.describe_audio(audio.measure_curves(samples))

    def infer(self, inputs: np.ndarray) -> np.ndarray:
        """See `FeatureBackend.infer`; (m, D) float32."""
        return inputs if self._is_compact else np.stack([vmnet2017.describe_sound(samples) for samples in inputs])


class Vmnet2017Params(DescriptorParams):
    """Parameters of the `vmnet2017` backend."""

    max_duration_s: float = Field(300.0, gt=0, le=36_000, description="Length of the window; later audio is ignored.")


class Vmnet2017Backend(AudioDescriptorBackend):
    """The numbers of the preset `vmnet2017` under a name of their own: (1140,) float32 per item.

    A variant can have them beside `descriptors_audio`. Audio shorter than 29 s is repeated, where the preset has
    zeros, so that the numbers do not tell how long an item is.
    """

    name: ClassVar[str] = "vmnet2017"
    params_type: ClassVar[type[DescriptorParams]] = Vmnet2017Params

    @property
    def _preset(self) -> str:
        return "vmnet2017"

    def describe_settings(self) -> dict[str, Any]:
        """See `DescriptorBackend`."""
        return {**super().describe_settings(), "short_audio": "repeat"}

    def _describe(self, samples: np.ndarray) -> np.ndarray:
        return vmnet2017.take_middle(samples, repeats=True)
