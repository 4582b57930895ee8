"""Every kind of model that is listed runs: tiny configurations of the classes that transformers has for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiny_encoders import MAKERS, TEXT, VISION
from vmnet_pipeline.backends.encoders import library
from vmnet_pipeline.backends.encoders.kinds import JOINT_TYPES, OPENVINO_TYPES, TYPES
from vmnet_pipeline.backends.networks.encoders import READERS, EncoderNetwork

pytestmark = pytest.mark.long

WAVE = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "conv_dim": [8, 8],
    "conv_kernel": [10, 4], "conv_stride": [5, 4], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
PLAIN = {key: value for key, value in VISION.items() if key != "projection_dim"}
CONFIGS = {
    **{name: dict(WAVE) for name in ("hubert", "wav2vec2", "wav2vec2-conformer", "wavlm", "unispeech-sat")},
    "data2vec-audio": {**WAVE, "conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2},
    **{name: dict(PLAIN) for name in ("dinov2", "dinov2_with_registers", "dinov3_vit", "siglip_vision_model")},
    "clip_vision_model": dict(VISION),
    "dinov3_convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32},
    "xclip": {
        "text_config": {**TEXT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        "vision_config": {**VISION, "num_frames": 4, "mit_hidden_size": 12, "mit_intermediate_size": 24,
                          "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2},
        "projection_dim": 12,
    },
    "videoprism_vision_model": {
        "image_size": 36, "num_frames": 4, "tubelet_size": [1, 18, 18], "hidden_size": 16, "intermediate_size": 32,
        "num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1, "num_attention_heads": 2,
    },
}  # fmt: skip
MADE = {
    "clap": "clap", "audio-spectrogram-transformer": "ast", "encodec": "encodec", "clip": "clip", "siglip": "siglip2",
    "videomae": "videomae", "videoprism": "videoprism", "pe_audio_video": "pe-av", "pe_audio": "pe-av",
    "pe_video": "pe-av", "mert_model": "mert",
}  # fmt: skip
SHAPES = {"audio": (4000,), "frame": (3, 32, 32), "clip": (4, 3, 32, 32)}
OWN_SHAPES = {
    "clap": (1, 101, 16), "encodec": (1, 4000),
    "audio-spectrogram-transformer": (64, 32), "videoprism": (4, 3, 36, 36),
    "videoprism_vision_model": (4, 3, 36, 36),
}  # fmt: skip


def make(kind: str, name: str):
    transformers = library.import_library()
    if name in CONFIGS:
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(name, **CONFIGS[name]))
    model = MAKERS[MADE[name]](transformers)[0]
    part = {"pe_audio": "audio_model", "pe_video": "video_model"}.get(name)
    return getattr(model, part) if part else model


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in TYPES.items() for name in names])
def test_every_kind_that_is_listed_gives_an_embedding_per_entry(kind, name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EncoderNetwork(make(kind, name).eval(), kind)
    shape = (1, 4000) if kind == "audio" and name.startswith("pe_") else OWN_SHAPES.get(name) or SHAPES[kind]
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32))
    with torch.inference_mode():
        found, single = network(inputs), network(inputs[1:2])
    assert found.ndim == 2
    assert len(found) == 3
    assert torch.isfinite(found).all()
    assert (found[0] - found[1]).abs().max() > 1e-6
    torch.testing.assert_close(found[1:2], single, rtol=1e-4, atol=1e-5)


def test_the_lists_name_the_same_kinds():
    assert {kind: {*names} for kind, names in TYPES.items()} == {kind: {*table} for kind, table in READERS.items()}
    every = {name for names in TYPES.values() for name in names}
    assert {*JOINT_TYPES, *OPENVINO_TYPES} <= every
