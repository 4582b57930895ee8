"""Which models of the library can be used for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError

if TYPE_CHECKING:
    from vmnet_pipeline.backends.encoders.source import Source
    from vmnet_pipeline.backends.networks.encoders import Kind

SOUND_TYPES = (
    *("clap", "audio-spectrogram-transformer", "encodec", "pe_audio", "pe_audio_video", "hubert", "wav2vec2"),
    *("wav2vec2-conformer", "wavlm", "unispeech-sat", "data2vec-audio", "mert_model"),
)
FRAME_TYPES = (
    *("clip", "siglip", "dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext", "clip_vision_model"),
    "siglip_vision_model",
)
CLIP_TYPES = ("videomae", "xclip", "videoprism", "videoprism_vision_model", "pe_video", "pe_audio_video")
TYPES: dict[Kind, tuple[str, ...]] = {"audio": SOUND_TYPES, "frame": FRAME_TYPES, "clip": CLIP_TYPES}
JOINT_TYPES = ("clap", "clip", "siglip", "xclip", "videoprism", "pe_audio", "pe_video", "pe_audio_video")
"""Models with a text tower: their embeddings, and those of texts, are in one space."""

OPENVINO_TYPES = (
    *("clap", "audio-spectrogram-transformer", "hubert", "encodec", "clip", "siglip", "dinov3_vit"),
    *("videoprism", "videomae", "pe_audio_video"),
)
"""Models of which OpenVINO gives the numbers of torch (cosine 0.999), so that `engine: auto` takes it."""

OF_SIDE: dict[Kind, str] = {"audio": "audio", "frame": "frames", "clip": "clips of frames"}


def check_type(source: Source, kind: Kind) -> None:
    """Refuse a model that is for something else.

    Raises:
        ParameterError: It is.
    """
    if source.model_type in TYPES[kind]:
        return
    others = [name for name, types in TYPES.items() if source.model_type in types]
    is_for = " and ".join(OF_SIDE[name] for name in others)
    raise ParameterError(
        f"model {source.name!r} is {source.model_type or 'of no named kind'!r}, "
        + (f"for {is_for}" if others else "which embeds neither audio nor frames here")
        + f"; for {OF_SIDE[kind]} choose one of {', '.join(TYPES[kind])}"
    )
