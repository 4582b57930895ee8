"""Embed the pieces of one item, for alignment over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.inference.input_spec import InputSpec, embed_side

if TYPE_CHECKING:
    import numpy as np

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.models.two_tower import VMNet


class PieceEmbedder:
    """Embeds the pieces of items of one side.

    Args:
        backend: Made the features; not loaded.

    Raises:
        ParameterError: The tower takes items of one length, or the backend has no `step_s`.
    """

    def __init__(self, model: VMNet, spec: InputSpec, backend: FeatureBackend, piece_s: float) -> None:
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

    def embed(self, feature: np.ndarray) -> np.ndarray:
        """Embed the pieces of one stored feature, (T, D), in order: (n, E), n >= 1.

        The T steps are divided evenly into as many pieces as come closest to the wanted length.

        Raises:
            ParameterError: The feature was stored pooled.
            EmbedderError: The feature does not fit the network.
        """
        import numpy as np

        if feature.ndim == 1:
            raise ParameterError(
                f"the {self._spec.side} features are stored pooled and cannot be cut into pieces; extract them with "
                "pooled=false, or omit re-ranking"
            )
        n_pieces = min(len(feature), max(1, round(len(feature) / self._steps_per_piece)))
        pieces = np.array_split(np.asarray(feature, np.float32), n_pieces)
        return embed_side(self._model, self._spec.side, self._spec.pack(pieces, self._pool))
