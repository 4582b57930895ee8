"""The models that need no settings: where they come from, under which licence, at which rate they are used.

A revision is a commit of the model's repository. Where none is given here, `kedro weights fetch NAME@REVISION` and
`NAME.revision` name one. `random` builds the published architecture with random weights, for tests and benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """One model, and how it is used.

    Attributes:
        model: Id on the hub, or "" where the parameters must name one.
        revision: Commit, 40 hex digits; "" where it is not known here.
        licence: Of the weights, as its publisher names it.
        width: Numbers per window or frame, as published.
        model_type: Kind of the network, as transformers names it.
        config: Name of the configuration class, for random weights; "" where the published one is too large for them.
        processor: Name and arguments of the class of the processor, for random weights.
        window_s: Seconds of audio per entry.
        rate_hz: Frames taken per second.
        n_frames: Frames per entry.
        overrides: Fields of that configuration that differ from its defaults.
    """

    model: str
    revision: str
    licence: str
    width: int
    model_type: str = ""
    config: str = ""
    processor: tuple[str, dict[str, Any]] = ("", {})
    window_s: float = 10.0
    rate_hz: float = 1.0
    n_frames: int = 1
    overrides: dict[str, Any] = field(default_factory=dict)


CLAP = Preset(
    "laion/larger_clap_music",
    "a0b4534a14f58e20944452dff00a22a06ce629d1",
    "apache-2.0",
    512,
    "clap",
    "ClapConfig",
    ("ClapFeatureExtractor", {"truncation": "rand_trunc"}),
    overrides={
        "audio_config": {
            "hidden_size": 1024,
            "patch_embeds_hidden_size": 128,
            "depths": [2, 2, 12, 2],
            "num_attention_heads": [4, 8, 16, 32],
        }
    },
)
MERT = Preset(
    "m-a-p/MERT-v1-95M",
    "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
    "cc-by-nc-4.0",
    768,
    "hubert",
    "HubertConfig",
    ("Wav2Vec2FeatureExtractor", {"sampling_rate": 24_000, "do_normalize": True}),
    window_s=5.0,
)
AST = Preset(
    "MIT/ast-finetuned-audioset-10-10-0.4593",
    "f826b80d28226b62986cc218e5cec390b1096902",
    "bsd-3-clause",
    768,
    "audio-spectrogram-transformer",
    "ASTConfig",
    ("ASTFeatureExtractor", {}),
    window_s=10.24,
)
CLIP = Preset(
    "openai/clip-vit-base-patch32",
    "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    "mit",
    512,
    "clip",
    "CLIPConfig",
    ("CLIPImageProcessor", {}),
)
SIGLIP2 = Preset(
    "google/siglip2-base-patch16-224",
    "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",
    "apache-2.0",
    768,
    "siglip",
    "SiglipConfig",
    ("SiglipImageProcessor", {}),
)
DINOV3 = Preset(
    "facebook/dinov3-vits16-pretrain-lvd1689m",
    "114c1379950215c8b35dfcd4e90a5c251dde0d32",
    "dinov3-license",
    384,
    "dinov3_vit",
    "DINOv3ViTConfig",
    ("DINOv3ViTImageProcessor", {}),
)
VIDEOPRISM = Preset(
    "google/videoprism-lvt-base-f16r288",
    "",
    "apache-2.0",
    768,
    "videoprism",
    "VideoPrismConfig",
    ("LlavaOnevisionVideoProcessor", {"size": {"height": 288, "width": 288}, "do_normalize": False}),
    rate_hz=4.0,
    n_frames=16,
)
PE_AV = Preset(
    "facebook/pe-av-small",
    "",
    "apache-2.0",
    1024,
    "pe_audio_video",
    rate_hz=4.0,
    n_frames=16,
)
OTHER = Preset("", "", "", 0)

PRESETS: dict[str, Preset] = {
    "clap": CLAP,
    "mert": MERT,
    "ast": AST,
    "clip": CLIP,
    "siglip2": SIGLIP2,
    "dinov3": DINOV3,
    "videoprism": VIDEOPRISM,
    "pe-av-audio": PE_AV,
    "pe-av-video": PE_AV,
}
"""Backend to its model; those of `pe-av` are the two sides of one."""
