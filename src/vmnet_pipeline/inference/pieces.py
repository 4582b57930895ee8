"""Embed the pieces of one item, for alignment over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.backends.joint import list_parts
from vmnet_pipeline.backends.whole_file import WholeFileBackend
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.inference.input_spec import InputSpec, embed_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.backends.joint import JointBackend
    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.params import PieceParams
    from vmnet_pipeline.types import ItemFeature


class PieceEmbedder:
    """Embeds the pieces of items of one side.

    Args:
        backend: Made the features; not loaded.

    Raises:
        ParameterError: The tower takes items of one length, or the backend has no `step_s`.
    """

    def __init__(self, model: VMNet, spec: InputSpec, backend: FeatureBackend | JointBackend, piece_s: float) -> None:
        if len(spec.shape) == 2 and not spec.takes_steps:
            raise ParameterError(
                f"the {spec.side} tower takes {spec.shape[0]} steps of every item, so items cannot be cut into pieces; "
                "omit re-ranking, or train another tower (`train.model`)"
            )
        step_s = getattr(backend, "step_s", None)
        if not step_s:
            raise ParameterError(
                f"backend {backend.name!r} does not state the interval of its steps; give it a property `step_s`, or "
                "omit re-ranking"
            )
        self._model, self._spec, self._pool = model, spec, backend.pool
        self._steps_per_piece = piece_s / step_s

    def embed(self, feature: ItemFeature) -> np.ndarray:
        """Embed the pieces of one stored feature, (T, D), in order: (n, E), n >= 1.

        The T steps are divided evenly into as many pieces as come closest to the wanted length. Features of several
        backends are divided alike; one without time, (D,), is repeated in every piece.

        Raises:
            ParameterError: The feature was stored pooled.
            EmbedderError: The feature does not fit the network.
        """
        import numpy as np

        parts = feature if isinstance(feature, tuple) else (feature,)
        timed = [part for part in parts if part.ndim > 1]
        if not timed:
            raise ParameterError(
                f"the {self._spec.side} features are stored pooled and cannot be cut into pieces; extract them with "
                "pooled=false, or omit re-ranking"
            )
        n_pieces = min(*map(len, timed), max(1, round(len(timed[0]) / self._steps_per_piece)))
        cut = [np.array_split(np.asarray(part, np.float32), n_pieces) if part.ndim > 1 else [part] * n_pieces
               for part in parts]  # fmt: skip
        pieces: list[ItemFeature] = [*zip(*cut, strict=True)] if len(parts) > 1 else [*cut[0]]
        return embed_side(self._model, self._spec.side, self._spec.pack(pieces, self._pool))


# --- whole files, of libraries


def is_whole_file(backend: FeatureBackend | JointBackend) -> bool:
    """Whether the backend of a side reads whole files."""
    return all(isinstance(part, WholeFileBackend) for part in list_parts(backend))


def find_piece_params(backend: WholeFileBackend | JointBackend) -> PieceParams:
    """How the files of a side are cut."""
    return cast("WholeFileBackend", list_parts(cast("Any", backend))[0]).pieces


def split_feature(backend: WholeFileBackend | JointBackend, feature: ItemFeature) -> list[tuple[np.ndarray, ...]]:
    """The rows of each piece of one whole file, one array (t, D) per backend; n >= 1 pieces in order of time.

    Backends may find a file a little longer than others do; the shortest counts.
    """
    parts = cast("Sequence[WholeFileBackend]", list_parts(cast("Any", backend)))
    features = feature if isinstance(feature, tuple) else (feature,)
    return list(zip(*(part.cut(own) for part, own in zip(parts, features, strict=True)), strict=False))


def embed_pieces(
    model: VMNet,
    spec: InputSpec,
    pieces: Sequence[tuple[np.ndarray, ...]],
    backend: WholeFileBackend | JointBackend,
) -> np.ndarray:
    """(n, E) float32 unit rows of n pieces, each pooled and embedded as if it were an item.

    A tower that takes 62 patches of every item gets those of the piece again and again, as it does of short audio.

    Raises:
        EmbedderError: The features do not fit the network.
    """
    import numpy as np

    if spec.takes_steps:
        return embed_side(model, spec.side, spec.pack([piece[0] for piece in pieces], np.asarray))
    if len(spec.shape) == 2:
        looped = [np.resize(piece[0], (spec.shape[0], piece[0].shape[1])) for piece in pieces]
        return embed_side(model, spec.side, spec.read(looped, pooled=True))
    parts = cast("Sequence[WholeFileBackend]", list_parts(cast("Any", backend)))
    pooled = [
        np.concatenate([part.pool_piece(own) for part, own in zip(parts, piece, strict=True)]) for piece in pieces
    ]
    return embed_side(model, spec.side, spec.read(pooled, pooled=True))
