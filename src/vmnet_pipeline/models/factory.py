"""Two-tower networks: arrays of features in, unit vectors in one shared space out.

A tower is any module that maps a batch to a `TowerOutput`; a new one is a class and a line in `MUSIC_TOWERS` or
`VIDEO_TOWERS`. Builders import their module when they are called, and take plain values, so configuration objects never
enter a network.

Source: arXiv:1704.06761 (VM-NET); the variants are called after the music feature that they were made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.models.two_tower import Standardise, VMNet, Whiten
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


def build_time_fusion(
    input_shape: tuple[int, ...],
    embedding_dim: int,
    dropout: float,
    *,
    layers: int = MUSIC_LAYERS,
    linear: bool = False,
) -> nn.Module:
    """Build VM-NET's music tower on (T, C) VGGish patches, e.g. (62, 512): time filters, hidden layers, fc E."""
    from vmnet_pipeline.models.pooled_tower import TimeFusionTower

    _require_rank(input_shape, 2, "vggish")
    if input_shape[0] < 9:
        raise ParameterError(
            f"tower 'vggish' pools time by 9, but features have {input_shape[0]} steps; use longer audio"
        )
    return TimeFusionTower(input_shape[1], _hidden_dims(layers), embedding_dim, dropout=dropout, linear=linear)


def build_pooled(
    input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, name: str, layers: int, linear: bool = False
) -> nn.Module:
    """Build a VM-NET tower on a pooled vector: hidden layers and fc E; `musicnn` has batch norm after the first."""
    from vmnet_pipeline.models.pooled_tower import PooledTower

    _require_rank(input_shape, 1, name)
    normalise_first = name == "musicnn" and not linear  # the reference's linear towers leave out this norm too
    dims = _hidden_dims(layers)
    return PooledTower(
        input_shape[0], dims, embedding_dim, normalise_first=normalise_first, dropout=dropout, linear=linear
    )


def _hidden_dims(layers: int) -> tuple[int, ...]:
    if not 1 <= layers <= len(HIDDEN_DIMS) + 1:
        raise ParameterError(f"a VM-NET tower has 1 to {len(HIDDEN_DIMS) + 1} fully connected layers, not {layers}")
    return HIDDEN_DIMS[: layers - 1]


def build_sequence(input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, depth: int) -> nn.Module:
    """Build attention over the steps of a sequence, (T, D), after `depth` transformer layers."""
    from vmnet_pipeline.models.sequence_tower import SequenceTower

    _require_rank(input_shape, 2, "transformer" if depth else "sequence")
    return SequenceTower(input_shape[1], embedding_dim, depth=depth, dropout=dropout)


def build_canonical(input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, side: Side) -> nn.Module:
    """Build one of two towers that start from canonical correlation analysis, on (D,) or (T, D) features."""
    from vmnet_pipeline.models.cca_tower import CanonicalTower

    if len(input_shape) not in (1, 2) or min(input_shape) < 1:
        raise ParameterError(
            f"tower 'canonical' takes features of shape (D,) or (T, D) per item, but these have {input_shape}"
        )
    return CanonicalTower(input_shape[-1], embedding_dim, side=side, dropout=dropout)


def build_kernel(
    input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, n_landmarks: int | None = None
) -> nn.Module:
    """Either side: kernel CCA in closed form; (D,) or (T, D) features. It has no dropout."""
    from vmnet_pipeline.models.kernel_tower import N_LANDMARKS, KernelTower

    if len(input_shape) not in (1, 2) or min(input_shape) < 1:
        raise ParameterError(
            f"tower 'kernel' takes features of shape (D,) or (T, D) per item, but these have {input_shape}"
        )
    return KernelTower(input_shape[-1], embedding_dim, n_landmarks or N_LANDMARKS)


def build_reduced(
    input_shape: tuple[int, ...], embedding_dim: int, dropout: float, *, ranks: Sequence[int] | None = None
) -> nn.Module:
    """Either side: reduced-rank CCA in closed form, for few pairs; (D,) or (T, D) features. It has no dropout."""
    from vmnet_pipeline.models.reduced_cca import list_ranks
    from vmnet_pipeline.models.reduced_tower import ReducedTower

    if len(input_shape) not in (1, 2) or min(input_shape) < 1:
        raise ParameterError(
            f"tower 'reduced' takes features of shape (D,) or (T, D) per item, but these have {input_shape}"
        )
    return ReducedTower(input_shape[-1], ranks or list_ranks(1, 1))


def build_projection(input_shape: tuple[int, ...], embedding_dim: int, dropout: float) -> nn.Module:
    """Either side: one matrix, on (D,) or (T, D) features; that of a network without training. It has no dropout."""
    from vmnet_pipeline.models.projection_tower import ProjectionTower

    if len(input_shape) not in (1, 2) or min(input_shape) < 1:
        raise ParameterError(
            f"tower 'projection' takes features of shape (D,) or (T, D) per item, but these have {input_shape}"
        )
    return ProjectionTower(input_shape[-1], embedding_dim)


MUSIC_TOWERS: dict[str, TowerBuilder] = {
    "vggish": partial(build_time_fusion, layers=MUSIC_LAYERS),
    "musicnn": partial(build_pooled, name="musicnn", layers=MUSIC_LAYERS),
    "canonical": partial(build_canonical, side="music"),
    "kernel": build_kernel,
    "reduced": build_reduced,
    "projection": build_projection,
    "sequence": partial(build_sequence, depth=0),
    "transformer": partial(build_sequence, depth=2),
}
VIDEO_TOWERS: dict[str, TowerBuilder] = {
    "vggish": partial(build_pooled, name="vggish", layers=VIDEO_LAYERS),
    "musicnn": partial(build_pooled, name="musicnn", layers=VIDEO_LAYERS),
    "canonical": partial(build_canonical, side="video"),
    "kernel": build_kernel,
    "reduced": build_reduced,
    "projection": build_projection,
    "sequence": partial(build_sequence, depth=0),
    "transformer": partial(build_sequence, depth=2),
}
FITTED_OPTIONS = {"kernel": "n_landmarks", "reduced": "ranks"}
"""What the size of a tower in closed form depends on, beside the features."""
VMNET_TOWERS = frozenset({"vggish", "musicnn"})
"""Towers whose number of layers can be chosen, and which can be linear."""


def _find_builder(
    towers: Mapping[str, TowerBuilder], name: str, side: str, layers: int | None, linear: bool, **fitted: Any
) -> TowerBuilder:
    if name not in towers:
        raise ParameterError(f"there is no {side} tower '{name}'; choose one of {', '.join(sorted(towers))}")
    options: dict[str, int] = {} if layers is None else {"layers": layers}
    options |= {"linear": True} if linear else {}
    if options and name not in VMNET_TOWERS:
        raise ParameterError(
            f"{side} tower '{name}' has neither `{side}_layers` nor `linear`: leave them out, or use one of "
            f"{', '.join(sorted(VMNET_TOWERS))}"
        )
    own = FITTED_OPTIONS.get(name)
    return partial(towers[name], **options, **({own: fitted[own]} if own else {}))


def build_model(
    music_tower: str,
    video_tower: str,
    music_shape: Sequence[int],
    video_shape: Sequence[int],
    *,
    embedding_dim: int = EMBEDDING_DIM,
    dropout: float = 0.1,
    standardise: bool = False,
    whiten: Sequence[Side] = (),
    n_members: int = 1,
    music_layers: int | None = None,
    video_layers: int | None = None,
    linear: bool = False,
    n_landmarks: int | None = None,
    ranks: Sequence[int] | None = None,
    members: Sequence[Mapping[str, Any]] = (),
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
        whiten: Sides whose scaler also has a linear map, which is the identity until it is set.
        n_members: Several networks of this kind as one, see `models.ensemble`; their embeddings are joined.
        music_layers: Fully connected layers of a VM-NET music tower, 1-5; None for the published 3.
        video_layers: The same of video; None for the published 2.
        linear: VM-NET towers without ReLU, and without the batch norm behind their first layer.
        n_landmarks: Of a kernel tower; at most as many as there are training pairs.
        ranks: Sizes of the blocks of a reduced tower; `embedding_dim` is their sum.
        members: Arguments of networks of different kinds, which are joined by weights; the other arguments are then
            those of the member whose features the whole takes.

    Raises:
        ParameterError: A tower is unknown or does not fit the feature shape.
    """
    if members:
        from vmnet_pipeline.models.ensemble import join_weighted

        return join_weighted([build_model(**member) for member in members], [dict(member) for member in members])
    fitted = {"n_landmarks": n_landmarks, "ranks": ranks}
    build_music = _find_builder(MUSIC_TOWERS, music_tower, "music", music_layers, linear, **fitted)
    build_video = _find_builder(VIDEO_TOWERS, video_tower, "video", video_layers, linear, **fitted)
    networks = [
        VMNet(
            build_music(tuple(music_shape), embedding_dim, dropout),
            build_video(tuple(video_shape), embedding_dim, dropout),
            _build_scaler(music_shape[-1], standardise, whitens="music" in whiten),
            _build_scaler(video_shape[-1], standardise, whitens="video" in whiten),
        )
        for _ in range(n_members)
    ]
    if n_members == 1:
        return networks[0]
    from vmnet_pipeline.models.ensemble import join_networks

    return join_networks(networks, embedding_dim)


def _build_scaler(dim: int, standardise: bool, *, whitens: bool) -> nn.Module | None:
    if whitens:
        return Whiten(dim)
    return Standardise(dim) if standardise else None


def choose_music_tower(music_shape: Sequence[int]) -> str:
    """Name the music tower that fits a feature's shape: `vggish` for (T, C), `musicnn` for (D,)."""
    return "vggish" if len(music_shape) == 2 else "musicnn"
