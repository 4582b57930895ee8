"""Tiny random models of the classes that the encoders' presets are published in, saved as the library does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ["calm", "piano", "no", "drums", "fast", "dark", "a", "song", "loud", "guitar"]
TEXT = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32,
    "max_position_embeddings": 24, "projection_dim": 12,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 16, "projection_dim": 12,
}  # fmt: skip
SIZE = {"height": 32, "width": 32}
PIXELS = {"size": SIZE, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def make_tokenizer(transformers: Any, folder: Path) -> None:
    """A tokenizer of some words, as a file of the library tokenizers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",  # noqa: S106
    ).save_pretrained(folder)  # fmt: skip


def make_clap(t: Any) -> tuple[Any, Any]:
    audio = {
        "spec_size": 64, "num_mel_bins": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2],
        "patch_embeds_hidden_size": 16, "window_size": 2, "num_hidden_layers": 2, "projection_dim": 12,
    }  # fmt: skip
    text = {key: value for key, value in TEXT.items() if key != "projection_dim"} | {"projection_dim": 12}
    config = t.ClapConfig(audio_config=audio, text_config=text, projection_dim=12)
    extractor = t.ClapFeatureExtractor(
        feature_size=16, sampling_rate=8000, hop_length=160, fft_window_size=256, max_length_s=2, frequency_max=4000,
        truncation="rand_trunc", padding="repeatpad",
    )  # fmt: skip
    return t.ClapModel(config), extractor


def make_mert(t: Any) -> tuple[Any, Any]:
    config = t.HubertConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, conv_dim=[8, 8],
        conv_kernel=[10, 4], conv_stride=[5, 4], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return t.HubertModel(config), t.Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True)


def make_ast(t: Any) -> tuple[Any, Any]:
    config = t.ASTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_length=64,
        num_mel_bins=32,
    )  # fmt: skip
    return t.ASTModel(config), t.ASTFeatureExtractor(max_length=64, num_mel_bins=32)


def make_clip(t: Any) -> tuple[Any, Any]:
    text = TEXT | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = t.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)
    return t.CLIPModel(config), t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE)


def make_siglip2(t: Any) -> tuple[Any, Any]:
    text = {key: value for key, value in TEXT.items() if key != "projection_dim"}
    text |= {"projection_size": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {key: value for key, value in VISION.items() if key != "projection_dim"}
    return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision)), t.SiglipImageProcessor(size=SIZE)


def make_dinov3(t: Any) -> tuple[Any, Any]:
    vision = {key: value for key, value in VISION.items() if key != "projection_dim"}
    config = t.DINOv3ViTConfig(**vision, num_register_tokens=2)
    return t.DINOv3ViTModel(config), t.DINOv3ViTImageProcessor(size=SIZE)


def make_videoprism(t: Any) -> tuple[Any, Any]:
    vision = {
        "image_size": 36, "num_frames": 4, "tubelet_size": [1, 18, 18], "hidden_size": 16, "intermediate_size": 32,
        "num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    text = {key: value for key, value in TEXT.items() if key != "projection_dim"}
    text |= {"projection_size": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = t.VideoPrismConfig(vision_config=vision, text_config=text)
    size = {"height": 36, "width": 36}
    return t.VideoPrismClipModel(config), t.LlavaOnevisionVideoProcessor(size=size, do_normalize=False)


def make_videomae(t: Any) -> tuple[Any, Any]:
    vision = {key: value for key, value in VISION.items() if key != "projection_dim"}
    config = t.VideoMAEConfig(**vision, num_frames=4, tubelet_size=2)
    return t.VideoMAEModel(config), t.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE)


def make_encodec(t: Any) -> tuple[Any, Any]:
    config = t.EncodecConfig(
        hidden_size=16, num_filters=4, upsampling_ratios=[4, 2], sampling_rate=8000, codebook_size=16,
        codebook_dim=16, target_bandwidths=[1.5],
    )  # fmt: skip
    return t.EncodecModel(config), t.EncodecFeatureExtractor(sampling_rate=8000)


def make_pe_av(t: Any) -> tuple[Any, Any]:
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8,
    }  # fmt: skip
    text = {key: small[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
    text |= {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
             "sep_token_id": 2, "model_type": "modernbert"}  # fmt: skip
    dac = {"downsampling_ratios": [2, 4], "encoder_hidden_size": 4, "codebook_dim": 8, "hidden_size": 16}
    vision = {"architecture": "vit_tiny_patch16_224", "model_args": {"img_size": 32, "embed_dim": 16, "depth": 1,
              "num_heads": 2}, "num_classes": 16, "do_pooling": True}  # fmt: skip
    audio_video = {
        **small,
        "audio_config": {**small, "dac_config": dac, "model_type": "pe_audio_encoder"},
        "video_config": {**small, "vision_config": vision, "model_type": "pe_video_encoder"},
    }
    config = t.PeAudioVideoConfig(text_config=text, audio_video_config=audio_video)
    extractor = t.PeAudioFeatureExtractor(sampling_rate=8000, hop_length=8)
    return t.PeAudioVideoModel(config), (extractor, t.PeVideoVideoProcessor(**PIXELS))


MAKERS = {
    "clap": make_clap, "mert": make_mert, "ast": make_ast, "clip": make_clip, "siglip2": make_siglip2,
    "dinov3": make_dinov3, "videoprism": make_videoprism, "videomae": make_videomae, "encodec": make_encodec,
    "pe-av": make_pe_av,
}  # fmt: skip
WITH_TEXT = ("clap", "clip", "siglip2", "videoprism", "pe-av")


def save_tiny(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny model, its processor and, where it has a text tower, a tokenizer."""
    import torch

    from vmnet_pipeline.backends.encoders.library import import_library

    t = import_library()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processors = MAKERS[name](t)
        for parameter in model.parameters():  # so that heads that start at zero or one tell inputs apart
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    for processor in processors if isinstance(processors, tuple) else (processors,):
        processor.save_pretrained(folder)
    if name in WITH_TEXT:
        make_tokenizer(t, folder)
    assert json.loads((folder / "config.json").read_text())["model_type"]
    return folder
