"""The presets as backends."""

from __future__ import annotations

from typing import ClassVar

from vmnet_pipeline.backends.encoders import presets
from vmnet_pipeline.backends.encoders.backend import AudioEncoder, ClipEncoder, FrameEncoder


class Clap(AudioEncoder):
    """CLAP for music (Wu et al., 2023): audio and text in one space."""

    name: ClassVar[str] = "clap"
    preset: ClassVar[presets.Preset] = presets.CLAP


class Mert(AudioEncoder):
    """MERT (Li et al., 2024): music understanding; not for commercial use."""

    name: ClassVar[str] = "mert"
    preset: ClassVar[presets.Preset] = presets.MERT


class Ast(AudioEncoder):
    """Audio Spectrogram Transformer (Gong et al., 2021)."""

    name: ClassVar[str] = "ast"
    preset: ClassVar[presets.Preset] = presets.AST


class Clip(FrameEncoder):
    """CLIP (Radford et al., 2021): frames and text in one space."""

    name: ClassVar[str] = "clip"
    preset: ClassVar[presets.Preset] = presets.CLIP


class Siglip2(FrameEncoder):
    """SigLIP 2 (Tschannen et al., 2025): frames and text in one space."""

    name: ClassVar[str] = "siglip2"
    preset: ClassVar[presets.Preset] = presets.SIGLIP2


class Dinov3(FrameEncoder):
    """DINOv3 (Simeoni et al., 2025)."""

    name: ClassVar[str] = "dinov3"
    preset: ClassVar[presets.Preset] = presets.DINOV3


class Videoprism(ClipEncoder):
    """VideoPrism (Zhao et al., 2024): clips and text in one space."""

    name: ClassVar[str] = "videoprism"
    preset: ClassVar[presets.Preset] = presets.VIDEOPRISM


class PeAvAudio(AudioEncoder):
    """PE-AV (Meta, 2025), its audio: audio, clips and text in one space."""

    name: ClassVar[str] = "pe-av-audio"
    preset: ClassVar[presets.Preset] = presets.PE_AV


class PeAvVideo(ClipEncoder):
    """PE-AV, its video."""

    name: ClassVar[str] = "pe-av-video"
    preset: ClassVar[presets.Preset] = presets.PE_AV
