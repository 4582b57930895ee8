"""Check the axes of feature files by their shapes: list these, and detect transposed features."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import PairsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

logger = logging.getLogger(__name__)

N_LISTED = 6
MIN_WIDTHS = 3
"""Fewer different last axes may be mistakes in single files."""


def check_axes(side: str, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
    """List the shapes of one side by item (None for an unreadable file), and warn of doubtful ones.

    Features are (T, D) or (T, D, ., .): the second axis is the same for all items, and the first is their length.
    Where the first stays and the second varies, they are transposed. Where both stay and the first is the longer
    one, they may be. Of four axes, the last may be that of the feature where it is longer than the second.

    Raises:
        PairsError: The features are transposed.
    """
    known = [shape for shape in shapes.values() if shape]
    if not known:
        return
    listed = list_shapes(known)
    logger.info("%s features: %s", side, listed)
    wide = [shape for shape in known if len(shape) == 4 and shape[3] > shape[1]]
    _check_first_two(side, [shape for shape in known if len(shape) == 2], "array.T", listed)
    _check_first_two(side, [s for s in known if len(s) == 4 and s not in wide], "array.swapaxes(0, 1)", listed)
    if wide:
        logger.warning(
            "%s features: %d files with four axes, e.g. %s, are read as (T, C, time, mel). If C is the last axis, save "
            "array.transpose(0, 3, 1, 2) in their place",
            side, len(wide), wide[0],
        )  # fmt: skip


def _check_first_two(side: str, known: Sequence[tuple[int, ...]], turned: str, listed: str) -> None:
    steps, widths = (Counter(shape[axis] for shape in known) for axis in (0, 1))
    if len(steps) == 1 and len(widths) >= MIN_WIDTHS and 2 * max(widths.values()) <= widths.total():
        raise PairsError(
            f"The {side} features look transposed: the first axis is {next(iter(steps))} in all files, and the second "
            f"varies from {min(widths)} to {max(widths)} ({listed}). They are to be (T, D), one row per step: save "
            f"{turned} in their place."
        )
    if len(steps) == len(widths) == 1 and (n_steps := next(iter(steps))) > (width := next(iter(widths))):
        logger.warning(
            "%s features: all %d files are (%d, %d), which is read as %d steps of %d values each. If %d is the number "
            "of steps they are transposed: save %s in their place",
            side, steps.total(), n_steps, width, n_steps, width, width, turned,
        )  # fmt: skip


def list_shapes(shapes: Iterable[tuple[int, ...]]) -> str:
    """List shapes with their number of items, the most common first."""
    counts = Counter(shapes).most_common()
    more = f", and {len(counts) - N_LISTED} other shapes" if len(counts) > N_LISTED else ""
    return ", ".join(f"{count} x {shape}" for shape, count in counts[:N_LISTED]) + more


def explain_axes(side: str, shape: tuple[int, ...]) -> str:
    """Explain why an array of other than one or two axes is not a feature of a side, and the remedy."""
    hint = ""
    if len(shape) == 4 and side == "music":
        hint = " Raw VGGish belongs to variant=vmnet_vggish."
    elif len(shape) > 2:
        hint = f" Average over all axes but that of time and that of the {side} feature, and save the result."
    return f"{side} feature of shape {shape} is neither (D,) nor (T, D).{hint}"
