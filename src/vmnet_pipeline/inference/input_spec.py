"""Input shapes of a trained network; check features and convert them to that shape.

A network takes either one pooled array per item, (D,) or (62, 512), or the steps of each item, (T, D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vmnet_pipeline.errors import EmbedderError, PairsError
from vmnet_pipeline.params import SEQUENCE_TOWERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from vmnet_pipeline.models.two_tower import VMNet
    from vmnet_pipeline.types import FeatureArray, ItemFeature, Sequences, Side

MAX_STEPS = 100  # steps above which unlabelled features over time are ambiguous: 300 s of musicnn


def embed_side(model: VMNet, side: Side, features: FeatureArray) -> np.ndarray:
    """(n, E) float32 unit rows of one side."""
    from vmnet_pipeline.models.embed import embed_arrays

    return embed_arrays(model, music=features) if side == "music" else embed_arrays(model, video=features)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Input of one side of a network."""

    side: Side
    shape: tuple[int, ...]  # of one pooled item, (D,) or (62, 512); of sequences (most steps, D)
    takes_steps: bool

    @classmethod
    def of(cls, model_config: Mapping[str, Any], side: Side) -> InputSpec:
        """Read the spec of a checkpoint's network."""
        return cls(side, tuple(model_config[f"{side}_shape"]), model_config[f"{side}_tower"] in SEQUENCE_TOWERS)

    @property
    def blank(self) -> FeatureArray:
        """One item of zeros."""
        import numpy as np

        zeros = np.zeros((1, *self.shape), np.float32)
        return self._stack([zeros[0]]) if self.takes_steps else zeros

    def pack(self, features: Sequence[ItemFeature], pool: Callable[[Any], np.ndarray]) -> FeatureArray:
        """Convert one or more features, as they are stored, to the input of the network.

        Raises:
            EmbedderError: A feature does not have the shape that the network takes, or is not finite.
        """
        if self.takes_steps:
            return self._stack(cast("Sequence[np.ndarray]", features))  # of one backend
        return self.read([pool(feature) for feature in features], pooled=True)

    def read(self, value: Any, *, pooled: bool = False) -> FeatureArray:
        """Convert features from a user: one item, a batch with one more axis, or a list of items.

        Raises:
            EmbedderError: A shape is wrong or ambiguous, or a value is not finite.
        """
        import numpy as np

        if pooled and self.takes_steps:
            raise EmbedderError(f"this checkpoint takes all steps of its {self.side} features; omit pooled=True")
        if isinstance(value, (list, tuple)):
            items = [self._to_numbers(item) for item in value]
        else:
            array = self._to_numbers(value)
            is_item = array.ndim in self._count_axes(pooled)
            if not is_item and array.ndim - 1 not in self._count_axes(pooled):
                raise EmbedderError(self._describe_misfit(array.shape, pooled))
            is_raw = is_item and not pooled and not self.takes_steps
            if is_raw and array.ndim == 2 and len(array) > MAX_STEPS:
                raise EmbedderError(
                    f"{self.side} features of shape {array.shape} may be one item with {len(array)} steps or as many "
                    "pooled items; give array[None] for the first and pooled=True for the second"
                )
            items = [array] if is_item else list(array)
        if not items and not self.takes_steps:
            return np.zeros((0, *self.shape), np.float32)
        for item in items:
            if not self._fits(item.shape, pooled):
                raise EmbedderError(self._describe_misfit(item.shape, pooled))
        if self.takes_steps:
            return self._stack(items)
        return self._check_finite(np.stack([item if pooled else self._pool(item) for item in items]))

    def _count_axes(self, pooled: bool) -> tuple[int, ...]:
        """Axes of one item: pooling removes one of two for vectors over time, and two of four for VGGish."""
        if self.takes_steps:
            return (2, 4)
        return (len(self.shape),) if pooled else (2 * len(self.shape),)

    def _fits(self, item: tuple[int, ...], pooled: bool) -> bool:
        if len(item) not in self._count_axes(pooled) or 0 in item:
            return False
        if self.takes_steps:
            return item[1] == self.shape[1]
        if pooled:
            return item == self.shape
        return item[1:] == self.shape if len(self.shape) == 1 else item[:2] == self.shape

    def _pool(self, item: np.ndarray) -> np.ndarray:
        """Mean over the steps, for VGGish over time and mel inside each patch; in float64 like packing."""
        import numpy as np

        from vmnet_pipeline.backends.vggish import average_patches

        return average_patches(item) if len(self.shape) == 2 else np.asarray(item.mean(axis=0, dtype=np.float64))

    def _stack(self, items: Sequence[np.ndarray]) -> Sequences:
        from vmnet_pipeline.pairs.sequences import stack_sequences

        try:
            sequences = stack_sequences(items, self.shape[0])
        except (PairsError, ValueError) as error:
            raise EmbedderError(f"{self.side} features cannot be embedded: {error}") from error
        if sequences.values.shape[1] != self.shape[1]:
            raise EmbedderError(self._describe_misfit(items[0].shape, False))
        self._check_finite(sequences.values)
        return sequences

    def _check_finite(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(values, np.float32)
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            what = "step" if self.takes_steps else "item"
            message = f"{self.side} {what} {int(np.argmin(finite))} has NaN or infinity; make its features again"
            raise EmbedderError(message)
        return values

    def _to_numbers(self, value: Any) -> np.ndarray:
        import numpy as np

        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise EmbedderError(f"{self.side} features are not an array of numbers ({error})") from error
        if array.dtype.kind not in "fiu":
            raise EmbedderError(f"{self.side} features are {array.dtype}, not numbers; give an array of float32")
        return array

    def _describe_misfit(self, found: tuple[int, ...], pooled: bool) -> str:
        if self.takes_steps or len(self.shape) == 1:
            raw = f"(T, {self.shape[-1]})"
        else:
            raw = f"({self.shape[0]}, {self.shape[1]}, time, mel)"
        hint = ""
        if not self.takes_steps and (self._fits(found, not pooled) or self._fits(found[1:], not pooled)):
            hint = "; omit pooled=True for these" if pooled else "; if they are pooled already, give pooled=True"
        swapped = (*found[:-2], *found[:-3:-1])
        if not pooled and swapped != found and (self._fits(swapped, pooled) or self._fits(swapped[1:], pooled)):
            hint = "; these look transposed: pass array.T of each item"
        return (
            f"{self.side} features have shape {found}, but this checkpoint takes {self.shape if pooled else raw} per "
            f"item, one item or a batch with one more axis{hint}"
        )
