"""Recognise the towers of a checkpoint of the original code from its variables.

In it X is music and Y is video, and a tower of n layers is fc1 ... fc(n-1) and then fc5. More of fc1 to fc4 may be
there: the graph of the original has them whether its towers use them or not. Optimiser slots tell which were trained.

Source: variable names and graphs of github.com/MorrisXu-Driving/Video-Music_Cross-Modal_Retrival (both variants) and
github.com/csehong/VM-NET (`plain`).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from vmnet_pipeline.errors import CheckpointError
from vmnet_pipeline.models.factory import HIDDEN_DIMS, MUSIC_LAYERS, VIDEO_LAYERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import numpy as np

    Variables = Mapping[str, np.ndarray]

logger = logging.getLogger(__name__)

Variant = Literal["musicnn", "vggish", "plain"]
Network = Literal["X_network", "Y_network"]
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
LINEAR = {"W": "weight", "b": "bias"}
CONVOLUTION = {"kernel": "weight", "bias": "bias"}
LAST_NORM: dict[Variant, str] = {"musicnn": "bn5", "vggish": "BN", "plain": "BN"}
PUBLISHED_LAYERS: dict[Network, int] = {"X_network": MUSIC_LAYERS, "Y_network": VIDEO_LAYERS}
ORIGINAL_NAMES = {"X_network": ("music_layers", "num_layer_x"), "Y_network": ("video_layers", "num_layer_y")}
N_HIDDEN = len(HIDDEN_DIMS)
MAX_LISTED = 40
_NORM_PARTS = "|".join(BATCH_NORM)
_UNUSED: dict[Variant, re.Pattern[str]] = {
    "musicnn": re.compile(rf"[XY]_network/(fc[1-4]/[Wb]|bn1/(BN/)?({_NORM_PARTS}))"),
    "vggish": re.compile(r"[XY]_network/fc[1-4]/[Wb]"),
    "plain": re.compile(r"[XY]_network/fc[1-4]/[Wb]"),
}


@dataclass(frozen=True, slots=True)
class GivenTowers:
    """The user's `num_layer_x` (1-5), `num_layer_y` and `is_linear`; None is read from the checkpoint."""

    music_layers: int | None = None
    video_layers: int | None = None
    linear: bool | None = None


@dataclass(frozen=True, slots=True)
class Towers:
    """The towers of a checkpoint.

    Attributes:
        variant: `musicnn` (batch norms bn1 and bn5), `vggish` (filters along time) or `plain` (neither; 2017).
        music_layers: Fully connected layers of the music tower.
        video_layers: The same of video.
        linear: Whether they have no ReLU.
        assumed: Assumptions where the checkpoint has no evidence, in words.
    """

    variant: Variant
    music_layers: int
    video_layers: int
    linear: bool
    assumed: tuple[str, ...] = ()

    def layers(self) -> dict[str, str]:
        """Map layers of the original to ours."""
        layers = _name_side(self, "X_network", self.music_layers) | _name_side(self, "Y_network", self.video_layers)
        if self.variant == "vggish":
            for ours, name in enumerate(("X_network/time_fusion0", "X_network/time_fusion2")):
                layers[f"{name}/conv2d"] = f"music.time_fusion.{ours}.conv"
                layers[f"{name}/batch_normalization"] = f"music.time_fusion.{ours}.bn"
        return layers


def _name_side(towers: Towers, network: Network, n_layers: int) -> dict[str, str]:
    side = "music" if network == "X_network" else "video"
    head = "music.head" if towers.variant == "vggish" and side == "music" else side
    layers = {f"{network}/fc{k}": f"{head}.hidden.{k - 1}.fc" for k in range(1, n_layers)}
    layers |= {f"{network}/fc5": f"{head}.fc", f"{network}/{LAST_NORM[towers.variant]}": f"{head}.bn"}
    if towers.variant == "musicnn" and n_layers > 1 and not towers.linear:
        layers[f"{network}/bn1"] = f"{head}.hidden.0.bn"
    return layers


def map_variables(variables: Variables, towers: Towers, prefix: Path) -> dict[str, str]:
    """Map variables of the checkpoint to our tensors.

    Raises:
        CheckpointError: Variables are missing, or there are some that the original does not write; lists both.
    """
    wanted = {
        f"{_find_scope(variables, layer)}/{part}": f"{ours}.{target}"
        for layer, ours in towers.layers().items()
        for part, target in parts_of(layer).items()
    }
    missing = sorted(wanted.keys() - variables.keys())
    known = _UNUSED[towers.variant]
    odd = sorted(
        name
        for name in variables.keys() - wanted.keys()
        if name.startswith(("X_network/", "Y_network/")) and not known.fullmatch(name)
    )
    if missing or odd:
        found = [name for name in variables if name.startswith(("X_network/", "Y_network/"))]
        raise CheckpointError(
            f"{prefix} is not a checkpoint of the original code: "
            f"{'; '.join(_list(label, names) for label, names in (('it lacks', missing), ('it has', odd)) if names)}.\n"
            f"{_list('Found:', sorted(found))}\n{_list('Expected:', sorted(wanted))}\n"
            "Only the two networks of the original can be imported."
        )
    return wanted


def _list(label: str, names: Collection[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{label} {', '.join(list(names)[:MAX_LISTED]) or 'nothing'}{more}"


def _find_scope(variables: Variables, layer: str) -> str:
    """Find the scope of a layer's variables; some versions put those of a batch norm into a nested scope `BN`."""
    nested = f"{layer}/BN"
    is_nested = parts_of(layer) is BATCH_NORM and f"{nested}/gamma" in variables and f"{layer}/gamma" not in variables
    return nested if is_nested else layer


def parts_of(layer: str) -> dict[str, str]:
    """Map the variables of a layer to our names."""
    name = layer.rsplit("/", 1)[-1]
    if name.startswith("fc"):
        return LINEAR
    return CONVOLUTION if name == "conv2d" else BATCH_NORM


# --- what the towers are


def recognise_towers(
    variables: Variables, slots: Collection[str], graph_linear: bool | None, given: GivenTowers, prefix: Path
) -> Towers:
    """Recognise variant, depth and linearity; `slots` are names of the optimiser's variables.

    Raises:
        CheckpointError: The evidence is contradictory or missing.
    """
    variant = _recognise_variant(variables, prefix)
    assumed: list[str] = []
    music = _count_layers(variables, slots, "X_network", given.music_layers, prefix, assumed)
    video = _count_layers(variables, slots, "Y_network", given.video_layers, prefix, assumed)
    by_slots = _read_linear(slots, variant, {"X_network": music, "Y_network": video})
    evidence = {"the graph": graph_linear, "the optimiser's slots": by_slots, "linear": given.linear}
    linear = _decide_linear(evidence, variant, max(music, video) > 1, prefix, assumed)
    for sentence in assumed:
        logger.warning("%s: %s", prefix, sentence)
    return Towers(variant, music, video, linear, tuple(assumed))


def _recognise_variant(variables: Variables, prefix: Path) -> Variant:
    names = [name for name in variables if name.startswith(("X_network/", "Y_network/"))]
    if not names:
        found = ", ".join(sorted(variables)[:5]) or "none"
        raise CheckpointError(f"{prefix} is not a VM-NET checkpoint: it has no X_network or Y_network, but {found}")
    if any(name.startswith("X_network/time_fusion") for name in names):
        return "vggish"
    return "plain" if any(re.match(r"[XY]_network/BN/", name) for name in names) else "musicnn"


def _count_layers(
    variables: Variables, slots: Collection[str], network: Network, given: int | None, prefix: Path, assumed: list[str]
) -> int:
    """Count the fully connected layers of a tower, by the width that fc5 takes and by which were trained."""
    last, published = variables.get(f"{network}/fc5/W"), PUBLISHED_LAYERS[network]
    if last is None or last.ndim != 2 or f"{network}/fc1/W" not in variables:
        return given or published  # missing variables are reported later, by name
    widths = _list_widths(variables, network)
    fits = [n for n, width in widths.items() if width == last.shape[0]]
    if network == "X_network" and 3 in fits:  # its graph has fc3 and fc4 unless there are three layers
        has_more = "X_network/fc3/W" in variables
        fits = [n for n in fits if n != 3] if has_more else [3]
    by_slots = _count_trained(slots, network)
    left = [n for n in fits if by_slots in (None, n) and given in (None, n)]
    ours, original = ORIGINAL_NAMES[network]
    if not left:
        raise CheckpointError(
            f"{prefix}: the number of layers of {network} is not clear: fc5/W takes {last.shape[0]} values, which fits "
            f"{fits or 'none'}; the optimiser's slots say {by_slots or 'nothing'}; {ours} says {given or 'nothing'}"
        )
    if len(left) > 1 and published not in left:
        raise CheckpointError(
            f"{prefix}: nothing tells whether {network} has {' or '.join(map(str, left))} layers; "
            f"give {ours}, the {original} of its training"
        )
    if len(left) > 1:
        assumed.append(f"nothing tells the number of layers of {network}; the published {published} is taken ({ours})")
        return published
    return left[0]


def _list_widths(variables: Variables, network: Network) -> dict[int, int]:
    """Map each possible number of layers to the width that fc5 then takes."""
    widths = {1: int(variables[f"{network}/fc1/W"].shape[0])} if variables[f"{network}/fc1/W"].ndim else {}
    for k in range(1, N_HIDDEN + 1):
        weight = variables.get(f"{network}/fc{k}/W")
        if weight is None or weight.ndim != 2:
            break
        widths[k + 1] = int(weight.shape[1])
    return widths


def _count_trained(slots: Collection[str], network: Network) -> int | None:
    """Count layers with optimiser slots; None without any slots."""
    if f"{network}/fc5/W/Adam" not in slots:
        return None
    return 1 + sum(f"{network}/fc{k}/W/Adam" in slots for k in range(1, N_HIDDEN + 1))


def _read_linear(slots: Collection[str], variant: Variant, n_layers: Mapping[str, int]) -> bool | None:
    """Decide linearity by the slots: a linear tower bypasses its bn1, which is therefore never trained."""
    seen = {
        not any(f"{network}/{scope}/gamma/Adam" in slots for scope in ("bn1", "bn1/BN"))
        for network, n in n_layers.items()
        if variant == "musicnn" and n > 1 and _count_trained(slots, cast("Network", network)) is not None
    }
    return seen.pop() if len(seen) == 1 else None


def _decide_linear(
    evidence: Mapping[str, bool | None], variant: Variant, matters: bool, prefix: Path, assumed: list[str]
) -> bool:
    given = {name: value for name, value in evidence.items() if value is not None}
    if len(set(given.values())) > 1:
        words = ", ".join(f"{name} says {'linear' if value else 'with ReLU'}" for name, value in given.items())
        raise CheckpointError(f"{prefix}: whether its towers are linear is not clear: {words}")
    if given or not matters:
        return any(given.values())
    if variant == "plain":
        raise CheckpointError(
            f"{prefix}: nothing tells whether its towers are linear, as those of the 2017 code are; "
            "copy the .meta file beside it, or give linear, the is_linear of its training"
        )
    assumed.append("nothing tells whether its towers are linear; ReLU is taken, as the training script has it (linear)")
    return False
