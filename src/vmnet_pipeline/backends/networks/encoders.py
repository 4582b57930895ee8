"""Models of the library transformers as networks from one processed input per entry to one embedding per entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Kind = Literal["audio", "frame", "clip"]


def _take(output: Any) -> Tensor:
    """The embedding of what the library returns, which of some models is the tensor itself."""
    tensor: Tensor = output if hasattr(output, "ndim") else output.pooler_output
    return tensor.flatten(1)


def _read_hidden(name: str) -> Callable[[Any, Tensor, int], Tensor]:
    """The mean over time or place of a layer."""

    def read(model: Any, inputs: Tensor, layer: int) -> Tensor:
        hidden = model(**{name: inputs}, output_hidden_states=True).hidden_states[layer]
        mean: Tensor = hidden.mean(dim=1)
        return mean

    return read


def _read_last(name: str) -> Callable[[Any, Tensor, int], Tensor]:
    def read(model: Any, inputs: Tensor, layer: int) -> Tensor:
        mean: Tensor = model(**{name: inputs}).last_hidden_state.mean(dim=1)
        return mean

    return read


def _read_clap(model: Any, inputs: Tensor, layer: int) -> Tensor:
    longer = inputs.new_zeros(inputs.shape[0], 1) > 0  # windows fit, so none of them is cut
    return _take(model.get_audio_features(input_features=inputs, is_longer=longer))


def _read_codec(model: Any, inputs: Tensor, layer: int) -> Tensor:
    mean: Tensor = model.encoder(inputs).mean(dim=-1)
    return mean


def _read_pe_video(model: Any, inputs: Tensor, layer: int) -> Tensor:
    side = getattr(model, "video_model", model)  # the library's own method is out of reach within its constructor
    return _take(side.video_head(side.video_encoder(pixel_values_videos=inputs).pooler_output))


def _call(method: str, name: str) -> Callable[[Any, Tensor, int], Tensor]:
    return lambda model, inputs, layer: _take(getattr(model, method)(**{name: inputs}))


def _read_pooled(name: str) -> Callable[[Any, Tensor, int], Tensor]:
    return lambda model, inputs, layer: _take(model(**{name: inputs}))


_WAVES = ("hubert", "wav2vec2", "wav2vec2-conformer", "wavlm", "unispeech-sat", "data2vec-audio", "mert_model")
READERS: dict[Kind, dict[str, Callable[[Any, Tensor, int], Tensor]]] = {
    "audio": {
        "clap": _read_clap,
        "audio-spectrogram-transformer": _read_pooled("input_values"),
        "encodec": _read_codec,
        "pe_audio": _call("get_audio_embeds", "input_values"),
        "pe_audio_video": _call("get_audio_embeds", "input_values"),
        **dict.fromkeys(_WAVES, _read_hidden("input_values")),
    },
    "frame": {
        **dict.fromkeys(("clip", "siglip"), _call("get_image_features", "pixel_values")),
        **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext", "clip_vision_model",
                         "siglip_vision_model"), _read_pooled("pixel_values")),
    },
    "clip": {
        "videomae": _read_last("pixel_values"),
        "xclip": _call("get_video_features", "pixel_values"),
        "videoprism": _call("get_video_features", "pixel_values_videos"),
        "videoprism_vision_model": _read_last("pixel_values_videos"),
        "pe_video": _read_pe_video,
        "pe_audio_video": _read_pe_video,
    },
}  # fmt: skip
"""How the embedding of an entry is read from each kind of model."""


class EncoderNetwork(nn.Module):
    """(m, ...) processed inputs to (m, D) embeddings.

    Args:
        model: Of the library.
        kind: What an entry is.
        layer: Layer of models that give one embedding per time step.
    """

    def __init__(self, model: nn.Module, kind: Kind, layer: int = -1) -> None:
        super().__init__()
        self.model, self._layer = model, layer
        self._read = READERS[kind][model.config.model_type]  # type: ignore[union-attr, index]

    def forward(self, inputs: Tensor) -> Tensor:
        """Embed a batch."""
        return self._read(self.model, inputs, self._layer)
