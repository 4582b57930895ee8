"""Two-tower networks: arrays of features in, unit vectors in one shared space out.

A tower is any module that maps a batch to a `TowerOutput`; a new one is a class and a line in `MUSIC_TOWERS` or
`VIDEO_TOWERS`. Those that there are stand in `pooled`, `sequence` and `canonical`, which take from here what all towers
share; so builders import them when they are called. Builders take plain values, so configuration objects never enter a
network.

Source: arXiv:1704.06761 (VM-NET); the variants are called after the music feature that they were made for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn

from vmnet_pipeline.errors import ParameterError

EMBEDDING_DIM = 512
BN_MOMENTUM = 0.01  # torch counts the new value's share: 1 - 0.99
BN_EPSILON = 1e-3

TowerBuilder: TypeAlias = Callable[[tuple[int, ...], int, float], nn.Module]


class TowerOutput(NamedTuple):
    """What a tower gives.

    Attributes:
        embedding: (B, E) float32, rows of unit length.
        structure: (B, D) float32, the feature whose neighbourhoods the structure loss keeps; not normalised.
    """

    embedding: Tensor
    structure: Tensor


class MaskedSequence(NamedTuple):
    """Sequences of unlike length in one tensor.

    Attributes:
        values: (B, T, D) float32; what stands behind the end of an item has no meaning.
        mask: (B, T) bool, True where a step is; each item has at least one.
    """

    values: Tensor
    mask: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MaskedSequence:
        """The same on a device."""
        return MaskedSequence(*(part.to(device, non_blocking=non_blocking) for part in self))


Features: TypeAlias = Tensor | MaskedSequence


class PairOutput(NamedTuple):
    """Both towers' outputs for a batch of pairs; row i of both sides belongs together."""

    music: TowerOutput
    video: TowerOutput


def init_linear(layer: nn.Linear) -> nn.Linear:
    """Draw truncated-normal weights (cut at two deviations) of deviation sqrt(2 / fan_in); biases 0; in place."""
    std = math.sqrt(2.0 / layer.in_features)
    nn.init.trunc_normal_(layer.weight, std=std, a=-2.0 * std, b=2.0 * std)
    nn.init.zeros_(layer.bias)
    return layer


class Standardise(nn.Module):
    """(x - mean) / std over the last axis; the statistics are buffers and so travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, x: Features) -> Features:
        """(..., D) float32 -> (..., D) float32; of sequences the values."""
        if isinstance(x, MaskedSequence):
            return x._replace(values=(x.values - self.mean) / self.std)
        return (x - self.mean) / self.std


class VMNet(nn.Module):
    """A music tower and a video tower into one space.

    Args:
        music_tower: Module from (B, *music_shape) to `TowerOutput`.
        video_tower: Module from (B, *video_shape) to `TowerOutput`.
        music_scaler: Applied to music before its tower.
        video_scaler: Applied to video before its tower.
    """

    def __init__(
        self,
        music_tower: nn.Module,
        video_tower: nn.Module,
        music_scaler: nn.Module | None = None,
        video_scaler: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.music_scaler = music_scaler or nn.Identity()
        self.video_scaler = video_scaler or nn.Identity()
        self.music = music_tower
        self.video = video_tower

    def forward(self, music: Features, video: Features) -> PairOutput:
        """Run both towers on (B, ...) float32 features of B pairs."""
        return PairOutput(self._run_music(music), self._run_video(video))

    def embed_music(self, music: Features) -> Tensor:
        """Music features (B, *music_shape) float32 -> (B, E) float32 unit vectors."""
        return self._run_music(music).embedding

    def embed_video(self, video: Features) -> Tensor:
        """Video features (B, *video_shape) float32 -> (B, E) float32 unit vectors."""
        return self._run_video(video).embedding

    def _run_music(self, music: Features) -> TowerOutput:
        _refuse_sequences(music, self.music, "music")
        return cast("TowerOutput", self.music(self.music_scaler(music)))

    def _run_video(self, video: Features) -> TowerOutput:
        _refuse_sequences(video, self.video, "video")
        return cast("TowerOutput", self.video(self.video_scaler(video)))


def _refuse_sequences(features: Features, tower: nn.Module, side: str) -> None:
    """Raise where sequences meet a tower for features of one shape."""
    if isinstance(features, MaskedSequence) and not any(hasattr(part, "takes_sequences") for part in tower.modules()):
        raise ParameterError(
            f"the {side} features are sequences, and its tower takes features of one shape per item; "
            f"use {side}_tower 'sequence' or 'transformer', or pack the features pooled"
        )


def _require_rank(input_shape: tuple[int, ...], rank: int, tower: str) -> None:
    if len(input_shape) != rank or min(input_shape, default=0) < 1:
        form = "(D,)" if rank == 1 else "(T, C)"
        raise ParameterError(
            f"tower '{tower}' takes features of shape {form} per item, but these have {input_shape}; "
            "choose another tower or pool the features differently"
        )


def build_music_vggish(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Music tower on (62, 512) VGGish patches: time filters, fc 2048, fc 1024, fc E."""
    _require_rank(input_shape, 2, "vggish")
    if input_shape[0] < 9:
        raise ParameterError(
            f"tower 'vggish' pools time by 9, but features have {input_shape[0]} steps; use longer audio"
        )
    from vmnet_pipeline.models.pooled import TimeFusionTower

    return TimeFusionTower(input_shape[1], (2048, 1024), embedding_dim, dropout=dropout)


def build_music_musicnn(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Music tower on one pooled vector: fc 2048 BN, fc 1024, fc E."""
    return _build_pooled("musicnn", input_shape, (2048, 1024), embedding_dim, dropout)


def build_video_vggish(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Video tower beside the `vggish` music tower: fc 2048, fc E."""
    return _build_pooled("vggish", input_shape, (2048,), embedding_dim, dropout)


def build_video_musicnn(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Video tower beside the `musicnn` music tower: fc 2048 BN, fc E."""
    return _build_pooled("musicnn", input_shape, (2048,), embedding_dim, dropout)


def build_music_canonical(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Music side of a pair of towers that start from canonical correlation analysis; (D,) or (T, D) features."""
    return _build_canonical(input_shape, embedding_dim, dropout, side="music")


def build_video_canonical(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Video side of a pair of towers that start from canonical correlation analysis; (D,) or (T, D) features."""
    return _build_canonical(input_shape, embedding_dim, dropout, side="video")


def build_sequence(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Either side: attention over all steps of a sequence, (T, D) with T at most that of the shape."""
    return _build_sequence(input_shape, embedding_dim, dropout, depth=0)


def build_transformer(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Either side: two transformer layers, then the same attention."""
    return _build_sequence(input_shape, embedding_dim, dropout, depth=2)


def _build_pooled(
    tower: str, input_shape: tuple[int, ...], hidden_dims: Sequence[int], embedding_dim: int, dropout: float
) -> nn.Module:
    from vmnet_pipeline.models.pooled import PooledTower

    _require_rank(input_shape, 1, tower)
    normalise_first = tower == "musicnn"
    return PooledTower(input_shape[0], hidden_dims, embedding_dim, normalise_first=normalise_first, dropout=dropout)


def _build_sequence(input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, depth: int) -> nn.Module:
    from vmnet_pipeline.models.sequence import SequenceTower

    _require_rank(input_shape, 2, "transformer" if depth else "sequence")
    return SequenceTower(input_shape[1], embedding_dim, depth=depth, dropout=dropout)


def _build_canonical(
    input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, side: Literal["music", "video"]
) -> nn.Module:
    from vmnet_pipeline.models.canonical import CanonicalTower

    if len(input_shape) not in (1, 2) or min(input_shape) < 1:
        raise ParameterError(
            f"tower 'canonical' takes features of shape (D,) or (T, D) per item, but these have {input_shape}"
        )
    return CanonicalTower(input_shape[-1], embedding_dim, side=side, dropout=dropout)


MUSIC_TOWERS: dict[str, TowerBuilder] = {
    "vggish": build_music_vggish,
    "musicnn": build_music_musicnn,
    "canonical": build_music_canonical,
    "sequence": build_sequence,
    "transformer": build_transformer,
}
VIDEO_TOWERS: dict[str, TowerBuilder] = {
    "vggish": build_video_vggish,
    "musicnn": build_video_musicnn,
    "canonical": build_video_canonical,
    "sequence": build_sequence,
    "transformer": build_transformer,
}


def _find_builder(towers: Mapping[str, TowerBuilder], name: str, side: str) -> TowerBuilder:
    if name not in towers:
        raise ParameterError(f"there is no {side} tower '{name}'; choose one of {', '.join(sorted(towers))}")
    return towers[name]


def build_model(
    music_tower: str,
    video_tower: str,
    music_shape: Sequence[int],
    video_shape: Sequence[int],
    *,
    embedding_dim: int = EMBEDDING_DIM,
    dropout: float = 0.1,
    standardise: bool = False,
    n_members: int = 1,
) -> VMNet:
    """Build a freshly initialised network; the weights come from torch's global random state.

    Args:
        music_tower: Name in `MUSIC_TOWERS`.
        video_tower: Name in `VIDEO_TOWERS`.
        music_shape: Shape of one item's music feature, e.g. (62, 512) or (200,); of sequences (most steps, D).
        video_shape: Shape of one item's video feature, e.g. (2048,).
        embedding_dim: Size of the shared space.
        dropout: Share of activations dropped in training, 0-1; the reference keeps 0.9.
        standardise: Put `Standardise` before both towers; its statistics are 0 and 1 until they are set.
        n_members: Several networks of this kind as one, see `models.ensemble`; their embeddings are joined.

    Raises:
        ParameterError: A tower is unknown or does not fit the feature shape.
    """
    build_music = _find_builder(MUSIC_TOWERS, music_tower, "music")
    build_video = _find_builder(VIDEO_TOWERS, video_tower, "video")
    members = [
        VMNet(
            build_music(tuple(music_shape), embedding_dim, dropout),
            build_video(tuple(video_shape), embedding_dim, dropout),
            Standardise(music_shape[-1]) if standardise else None,
            Standardise(video_shape[-1]) if standardise else None,
        )
        for _ in range(n_members)
    ]
    if n_members == 1:
        return members[0]
    from vmnet_pipeline.models.ensemble import join_networks

    return join_networks(members, embedding_dim)


def choose_music_tower(music_shape: Sequence[int]) -> str:
    """Name the music tower that fits a feature's shape: `vggish` for (T, C), `musicnn` for (D,)."""
    return "vggish" if len(music_shape) == 2 else "musicnn"
