"""Feature backends around any encoder that the library transformers knows: of audio windows, of frames, of clips."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vmnet_pipeline.backends import engine, weights
from vmnet_pipeline.backends.encoders import library
from vmnet_pipeline.backends.encoders.agreement import check_agreement
from vmnet_pipeline.backends.encoders.kinds import JOINT_TYPES, OPENVINO_TYPES, check_type
from vmnet_pipeline.backends.encoders.params import (
    AudioEncoderParams,
    ClipEncoderParams,
    EncoderParams,
    FrameEncoderParams,
)
from vmnet_pipeline.backends.encoders.presets import OTHER, Preset
from vmnet_pipeline.backends.encoders.source import Source, find_source
from vmnet_pipeline.backends.encoders.windows import cut_audio, cut_frames
from vmnet_pipeline.backends.framing import batch_items, cut_windows, fill_last
from vmnet_pipeline.backends.network_backend import NetworkBackend
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.media.audio import decode_audio, stream_audio
from vmnet_pipeline.media.pixels import PICTURE_RECIPE
from vmnet_pipeline.media.video import sample_frames
from vmnet_pipeline.types import Modality, PreparedItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vmnet_pipeline.backends.networks.encoders import Kind

FRAMES_AT_ONCE = 8


class EncoderBackend(NetworkBackend):
    """(T, D) float32 per item, one row per window, frame or clip, as the library gives it."""

    preload: ClassVar[str] = "vmnet_pipeline.backends.encoders.preload"
    preset: ClassVar[Preset] = OTHER
    kind: ClassVar[Kind]
    params_type: ClassVar[type[engine.BackendParams]] = EncoderParams
    network_settings: ClassVar[tuple[str, ...]] = ("model", "revision", "layer", "library")

    def __init__(
        self, params: Mapping[str, Any] | None = None, *, weights_dir: str | Path = weights.DEFAULT_WEIGHTS_DIR
    ) -> None:
        super().__init__(params, weights_dir=weights_dir)
        self._processor: Any = None
        self._text: library.TextTower | None = None
        self._source: Source | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a worker gets: the processor, so that it opens no file, and no network."""
        return {**self.__dict__, "_run": None, "_text": None, "_processor": self.processor}

    # --- which model

    @property
    def source(self) -> Source:
        """The files of the model.

        Raises:
            ParameterError: They may not be used, or are of a model for something else.
            WeightsError: They are not here.
        """
        if self._source is None:
            params = self.params
            chosen = params.model or self.preset.model
            revision = params.revision or ("" if params.model else self.preset.revision)
            licence = params.licence or ("" if params.model else self.preset.licence)
            allow = params.allow_noncommercial
            found = find_source(chosen, revision, self._weights_dir, licence=licence, allow_noncommercial=allow)
            check_type(found, self.kind)
            self._source = found
        return self._source

    @property
    def is_random(self) -> bool:
        """Whether the network has the architecture of the preset and random weights.

        Raises:
            ParameterError: There is no such architecture.
        """
        if self.params.weights == "random" and not self.preset.config:
            raise ParameterError(f"weights: random of {self.name!r}: only a preset says which architecture to build")
        return bool(self.params.weights == "random")

    @property
    def model_type(self) -> str:
        """The kind of network, as transformers names it."""
        if self.is_random:
            return self.preset.model_type
        return self.source.model_type

    @property
    def space(self) -> str | None:
        """Name of the joint space that embeddings of texts are in, too; None for models without one.

        Backends of one model have equal names, whichever their side. Rows are as the library gives them: compare them
        by their cosine.
        """
        if self.is_random:
            is_joint = self.preset.model_type in JOINT_TYPES
            return f"{self.preset.model}@random-{self.params.random_seed}" if is_joint else None
        if self.model_type not in JOINT_TYPES:
            return None
        digest = hashlib.sha256(json.dumps(self.source.sha256, sort_keys=True).encode()).hexdigest()
        return f"{self.source.name}@{digest[:16]}"

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts in `space`; loads the text tower on first use.

        Returns:
            (n, D) float32, comparable with rows of this backend's features by their cosine.

        Raises:
            ParameterError: The model has no text tower, or random weights, which have no tokenizer.
            WeightsError: The weights or the tokenizer are not available.
        """
        if self._text is None:
            if self.is_random or self.space is None:
                raise ParameterError(f"{self.name}: this model embeds no texts; choose clap, clip, siglip2 or pe-av")
            self._text = library.load_text_tower(self.source, self.kind, self.load_model())
        return self._text.embed(texts)

    # --- what NetworkBackend asks for

    @property
    def weights_name(self) -> str:
        """See `NetworkBackend`."""
        return self.params.model or self.preset.model

    @property
    def processor(self) -> Any:
        """What makes inputs of samples or frames, as the model ships it."""
        if self._processor is None:
            name, arguments = self.preset.processor
            if self.is_random:
                self._processor = library.build_processor(name, arguments)
            else:
                self._processor = library.load_processor(self.source.folder, self.source.name, self.kind)
        return self._processor

    @property
    def input_shape(self) -> tuple[int, ...]:
        """See `NetworkBackend`; what the processor makes of silence or black."""
        return tuple(self.process(self.make_blank()).shape[1:])

    def _identify_weights(self) -> dict[str, Any]:
        if self.is_random:
            return {"name": "random", "seed": self.params.random_seed}
        return {"name": self.source.name, "sha256": self.source.sha256}

    def _choose_engine(self) -> engine.EngineChoice:
        """As every backend does; by default without OpenVINO for models of which nobody has seen it agree."""
        if self.params.engine == "auto" and not engine.has_cuda() and self.model_type not in OPENVINO_TYPES:
            return engine.choose_engine("torch", self.params.precision)
        return super()._choose_engine()

    def describe_settings(self) -> dict[str, Any]:
        """See `NetworkBackend`."""
        settings = {"model": self.preset.model} if self.is_random else self._describe_source()
        if self.params.layer != -1:
            settings["layer"] = self.params.layer
        return {
            **settings,
            "overlap": self.params.overlap,
            "max_duration_s": self.params.max_duration_s,
            "front_end": "processor of the model",
        }

    def _describe_source(self) -> dict[str, Any]:
        source, allowed = self.source, self.params.allow_noncommercial
        named = {"model": source.name, "revision": source.revision, "licence": source.licence}
        return named | ({"allow_noncommercial": True} if allowed else {})

    def load_model(self) -> Any:
        """The model of the library, on the processor.

        Raises:
            ParameterError: It runs code that is not allowed.
            WeightsError: The files do not fit together.
        """
        if self.is_random:
            return library.build_random(self.preset.config, self.preset.overrides, self.params.random_seed)
        return library.load_model(self.source, allow_remote_code=self._allow_code())

    def _allow_code(self) -> bool:
        allowed, revision = self.params.allow_remote_code, self.source.revision
        if allowed and allowed != revision:
            raise ParameterError(
                f"allow_remote_code {allowed!r}: the model is revision {revision or 'without a name'!r}; name exactly "
                "the revision whose code you have read"
            )
        if not allowed and self.source.needs_code:
            raise ParameterError(
                f"model {self.source.name!r} runs Python code of its publisher; read it, and allow it by "
                f"allow_remote_code: {revision or 'REVISION (with revision: REVISION)'}, or choose another model"
            )
        return bool(allowed)

    def build_network(self) -> Any:
        """See `NetworkBackend`."""
        from vmnet_pipeline.backends.networks.encoders import EncoderNetwork

        return EncoderNetwork(self.load_model(), self.kind, self.params.layer)

    def load(self) -> None:
        """See `FeatureBackend.load`; with OpenVINO the first load checks that it agrees with torch."""
        if self._run is None:
            super().load()
            if self._choose_engine().engine == "openvino":
                check_agreement(self)

    def pool_entries(self, feature: np.ndarray) -> np.ndarray:
        """(T, D) to (D,): the mean over time; in a joint space of rows of unit length."""
        rows = np.asarray(feature, np.float64)
        if self.space is not None:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return np.asarray(rows.mean(axis=0), np.float32)

    # --- what the kinds differ in

    def make_blank(self) -> Any:
        """One window of silence, or black frames."""
        raise NotImplementedError

    def process(self, signal: Any) -> np.ndarray:
        """Inputs of the network, one per entry of a signal."""
        raise NotImplementedError


class AudioEncoder(EncoderBackend):
    """(T, D) float32 per item, one row per window of audio."""

    name: ClassVar[str] = "audio_encoder"
    modality: ClassVar[Modality] = "audio"
    kind: ClassVar[Kind] = "audio"
    params_type: ClassVar[type[engine.BackendParams]] = AudioEncoderParams

    @property
    def window_s(self) -> float:
        """Seconds of audio per entry."""
        return float(self.params.window_s or self.preset.window_s)

    @property
    def step_s(self) -> float:
        """See `NetworkBackend`."""
        return float(self.window_s * (1.0 - self.params.overlap))

    def describe_settings(self) -> dict[str, Any]:
        """See `NetworkBackend`."""
        decoder = "ffmpeg, one clock, channel mean or the loudest if they cancel, soxr HQ at the processor's rate"
        return {**super().describe_settings(), "window_s": self.window_s, "short": "repeat", "decoder": decoder}

    def make_blank(self) -> np.ndarray:
        """One window of silence."""
        return np.zeros(round(self.window_s * self.processor.sampling_rate), np.float32)

    def process(self, signal: np.ndarray) -> np.ndarray:
        """(n,) samples at the rate of the processor to (T, ...) inputs."""
        rate = int(self.processor.sampling_rate)
        window = round(self.window_s * rate)
        most = library.count_most_samples(self.processor)
        if most and window > most:
            raise ParameterError(f"window_s {self.window_s:g}: this model takes at most {most / rate:g} s; give less")
        pieces = cut_audio(signal, window, round(window * (1.0 - self.params.overlap)))
        return library.process_audio(self.processor, pieces)

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`."""
        warnings: list[str] = []
        rate, length_s = int(self.processor.sampling_rate), self.params.max_duration_s
        samples = decode_audio(path, sample_rate_hz=rate, max_duration_s=length_s, warnings=warnings)
        inputs = self.process(samples)
        return PreparedItem(inputs, len(inputs), tuple(warnings))

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """See `whole_file.WholeFileBackend`; the windows of the whole file."""
        warnings: list[str] = []
        rate = int(self.processor.sampling_rate)
        window = round(self.window_s * rate)
        hop = max(1, round(window * (1.0 - self.params.overlap)))
        blocks = stream_audio(path, sample_rate_hz=rate, warnings=warnings)
        for samples in fill_last(cut_windows(blocks, window, hop), window, hop):
            yield PreparedItem(self.process(samples), 1)
        yield PreparedItem(np.empty((0, 1), np.float32), 0, tuple(warnings))


class FrameEncoder(EncoderBackend):
    """(T, D) float32 per item, one row per frame."""

    name: ClassVar[str] = "frame_encoder"
    modality: ClassVar[Modality] = "video"
    kind: ClassVar[Kind] = "frame"
    params_type: ClassVar[type[engine.BackendParams]] = FrameEncoderParams

    @property
    def rate_hz(self) -> float:
        """Frames taken per second."""
        return float(self.params.rate_hz or self.preset.rate_hz)

    @property
    def n_frames(self) -> int:
        """Frames per entry."""
        return 1

    @property
    def step_s(self) -> float:
        """See `NetworkBackend`."""
        return float(self._hop / self.rate_hz)

    @property
    def _hop(self) -> int:
        return int(max(1, round(self.n_frames * (1.0 - self.params.overlap))))

    def describe_settings(self) -> dict[str, Any]:
        """See `NetworkBackend`."""
        decoder = f"ffmpeg, one clock, picture on screen at t; {PICTURE_RECIPE}"
        return {**super().describe_settings(), "rate_hz": self.rate_hz, "decoder": decoder}

    def make_blank(self) -> Iterator[np.ndarray]:
        """One entry of black frames."""
        return (np.zeros((64, 64, 3), np.uint8) for _ in range(self.n_frames))

    def process(self, signal: Iterator[np.ndarray]) -> np.ndarray:
        """(H, W, 3) uint8 frames to (T, ...) inputs, some frames at a time."""
        parts: list[np.ndarray] = []
        pending: list[np.ndarray] = []
        for frame in signal:
            if pending and (frame.shape != pending[0].shape or len(pending) == FRAMES_AT_ONCE):
                parts.append(library.process_frames(self.processor, pending))
                pending = []
            pending.append(frame)
        parts.append(library.process_frames(self.processor, pending))
        return self._group(np.concatenate(parts))

    def _group(self, frames: np.ndarray) -> np.ndarray:
        return frames

    def prepare(self, path: str) -> PreparedItem:
        """See `FeatureBackend.prepare`."""
        warnings: list[str] = []
        length_s = self.params.max_duration_s
        found = sample_frames(path, rate_hz=self.rate_hz, max_duration_s=length_s, warnings=warnings)
        inputs = self.process(frame for _, frame in found)
        return PreparedItem(inputs, len(inputs), tuple(warnings))

    def stream(self, path: str, window_s: float, hop_s: float) -> Iterator[PreparedItem]:
        """See `whole_file.WholeFileBackend`; the frames, or clips, of the whole file."""
        warnings: list[str] = []
        found = sample_frames(path, rate_hz=self.rate_hz, max_duration_s=None, warnings=warnings)
        frames = (frame for _, frame in found)
        for entry in self._stream_entries(frames):
            inputs = self.process(iter(entry))
            yield PreparedItem(inputs, len(inputs))
        yield PreparedItem(np.empty((0, 1), np.float32), 0, tuple(warnings))

    def _stream_entries(self, frames: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Frames to process together."""
        return batch_items(frames, FRAMES_AT_ONCE)


class ClipEncoder(FrameEncoder):
    """(T, D) float32 per item, one row per clip of some frames."""

    name: ClassVar[str] = "clip_encoder"
    kind: ClassVar[Kind] = "clip"
    params_type: ClassVar[type[engine.BackendParams]] = ClipEncoderParams

    @property
    def n_frames(self) -> int:
        """Frames per clip."""
        return int(self.params.n_frames or max(self.preset.n_frames, 1 if self.preset.model else 16))

    def describe_settings(self) -> dict[str, Any]:
        """See `NetworkBackend`."""
        return {**super().describe_settings(), "n_frames": self.n_frames, "short": "repeat the last frame"}

    def _group(self, frames: np.ndarray) -> np.ndarray:
        return cut_frames(frames, self.n_frames, self._hop)

    def _stream_entries(self, frames: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """The frames of one clip after the other."""
        held: list[np.ndarray] = []
        before: list[np.ndarray] = []
        for frame in frames:
            held.append(frame)
            if len(held) == self.n_frames:
                yield held
                before, held = held, held[self._hop :]
        n_old = len(before) - self._hop if before else 0
        if len(held) > n_old:  # frames that no clip had yet: the last clip ends with the last of them
            yield [*before[: self._hop], *held][-self.n_frames :]
