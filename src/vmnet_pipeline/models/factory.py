"""Two-tower networks: arrays of features in, unit vectors in one shared space out.

A tower is any module that maps a batch to a `TowerOutput`; a new one is a class and a line in `MUSIC_TOWERS` or
`VIDEO_TOWERS`. Those that there are stand in `pooled`, `sequence` and `canonical`, which take from here what all towers
share; so builders import them when they are called. Builders take plain values, so configuration objects never enter a
network.

Source: arXiv:1704.06761 (VM-NET); the variants are called after the music feature that they were made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from torch import nn

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.two_tower import Standardise, VMNet
from vmnet_pipeline.models.types import EMBEDDING_DIM

if TYPE_CHECKING:
    from vmnet_pipeline.types import Side

# Feature shape, size of the embedding, dropout; VM-NET's own towers also take `layers` and `linear` by name.
TowerBuilder: TypeAlias = Callable[..., nn.Module]
HIDDEN_DIMS = (2048, 1024, 1024, 512)
"""Widths of VM-NET's hidden layers; a tower with `layers` fully connected ones has the first `layers - 1` of them."""
MUSIC_LAYERS = 3
VIDEO_LAYERS = 2


def _require_rank(input_shape: tuple[int, ...], rank: int, tower: str) -> None:
    if len(input_shape) != rank or min(input_shape, default=0) < 1:
        form = "(D,)" if rank == 1 else "(T, C)"
        raise ParameterError(
            f"tower '{tower}' takes features of shape {form} per item, but these have {input_shape}; "
            "choose another tower or pool the features differently"
        )


def build_music_vggish(
    input_shape: tuple[int, ...],
    embedding_dim: int,
    dropout: float,
    *,
    layers: int = MUSIC_LAYERS,
    linear: bool = False,
) -> nn.Module:
    """Music tower on (62, 512) VGGish patches: time filters, fc 2048, fc 1024, fc E."""
    _require_rank(input_shape, 2, "vggish")
    if input_shape[0] < 9:
        raise ParameterError(
            f"tower 'vggish' pools time by 9, but features have {input_shape[0]} steps; use longer audio"
        )
    from vmnet_pipeline.models.pooled_tower import TimeFusionTower

    return TimeFusionTower(input_shape[1], _hidden_dims(layers), embedding_dim, dropout=dropout, linear=linear)


def build_music_musicnn(
    input_shape: tuple[int, ...],
    embedding_dim: int,
    dropout: float,
    *,
    layers: int = MUSIC_LAYERS,
    linear: bool = False,
) -> nn.Module:
    """Music tower on one pooled vector: fc 2048 BN, fc 1024, fc E."""
    return _build_pooled("musicnn", input_shape, embedding_dim, dropout, layers, linear)


def build_video_vggish(
    input_shape: tuple[int, ...],
    embedding_dim: int,
    dropout: float,
    *,
    layers: int = VIDEO_LAYERS,
    linear: bool = False,
) -> nn.Module:
    """Video tower paired with the `vggish` music tower: fc 2048, fc E."""
    return _build_pooled("vggish", input_shape, embedding_dim, dropout, layers, linear)


def build_video_musicnn(
    input_shape: tuple[int, ...],
    embedding_dim: int,
    dropout: float,
    *,
    layers: int = VIDEO_LAYERS,
    linear: bool = False,
) -> nn.Module:
    """Video tower paired with the `musicnn` music tower: fc 2048 BN, fc E."""
    return _build_pooled("musicnn", input_shape, embedding_dim, dropout, layers, linear)


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
    tower: str, input_shape: tuple[int, ...], embedding_dim: int, dropout: float, layers: int, linear: bool
) -> nn.Module:
    from vmnet_pipeline.models.pooled_tower import PooledTower

    _require_rank(input_shape, 1, tower)
    return PooledTower(
        input_shape[0],
        _hidden_dims(layers),
        embedding_dim,
        normalise_first=tower == "musicnn" and not linear,  # the reference's linear towers leave out this norm too
        dropout=dropout,
        linear=linear,
    )


def _hidden_dims(layers: int) -> tuple[int, ...]:
    if not 1 <= layers <= len(HIDDEN_DIMS) + 1:
        raise ParameterError(f"a VM-NET tower has 1 to {len(HIDDEN_DIMS) + 1} fully connected layers, not {layers}")
    return HIDDEN_DIMS[: layers - 1]


def _build_sequence(input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, depth: int) -> nn.Module:
    from vmnet_pipeline.models.sequence_tower import SequenceTower

    _require_rank(input_shape, 2, "transformer" if depth else "sequence")
    return SequenceTower(input_shape[1], embedding_dim, depth=depth, dropout=dropout)


def _build_canonical(input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, side: Side) -> nn.Module:
    from vmnet_pipeline.models.cca_tower import CanonicalTower

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


VMNET_TOWERS = frozenset({"vggish", "musicnn"})
"""Towers whose number of layers can be chosen, and which can be linear."""


def _find_builder(
    towers: Mapping[str, TowerBuilder], name: str, side: str, layers: int | None, linear: bool
) -> TowerBuilder:
    if name not in towers:
        raise ParameterError(f"there is no {side} tower '{name}'; choose one of {', '.join(sorted(towers))}")
    options = {**({} if layers is None else {"layers": layers}), **({"linear": True} if linear else {})}
    if options and name not in VMNET_TOWERS:
        raise ParameterError(
            f"{side} tower '{name}' has neither `{side}_layers` nor `linear`: leave them out, or use one of "
            f"{', '.join(sorted(VMNET_TOWERS))}"
        )
    return partial(towers[name], **options)


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
    music_layers: int | None = None,
    video_layers: int | None = None,
    linear: bool = False,
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
        music_layers: Fully connected layers of a VM-NET music tower, 1-5; None for the published 3.
        video_layers: The same of video; None for the published 2.
        linear: VM-NET towers without ReLU, and without the batch norm behind their first layer.

    Raises:
        ParameterError: A tower is unknown or does not fit the feature shape.
    """
    build_music = _find_builder(MUSIC_TOWERS, music_tower, "music", music_layers, linear)
    build_video = _find_builder(VIDEO_TOWERS, video_tower, "video", video_layers, linear)
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
