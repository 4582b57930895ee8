"""The words for directions, pools and settings, so that table, plots and report say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTION_LABELS = {"music_to_video": "music → video", "video_to_music": "video → music"}
_WORDS = {"mrr": "MRR", "loss": "loss", "xy": ", music → video", "yx": ", video → music"}


def describe_pool(evaluation: Mapping[str, Any]) -> str:
    """What was searched, e.g. `pool of 50 (whole gallery)`."""
    if evaluation["n_pools"] == 1:
        return (
            f"pool of {evaluation['pool_size']:,} ({'mismatched pairs' if evaluation['shuffled'] else 'whole gallery'})"
        )
    return f"{evaluation['n_pools']} pools of {evaluation['pool_size']:,}"


def describe_method(evaluation: Mapping[str, Any]) -> str:
    """How ranks and intervals were made, in one sentence."""
    unit = "groups" if evaluation["resampled_by"] == "group" else "queries"
    right = "any item of the same group" if evaluation["positives"] == "group" else "the item itself"
    return (
        f"Right answer: {right}; ties: {evaluation['ties']}; {100 * evaluation['confidence_level']:g} % intervals: "
        f"percentile bootstrap over {unit}, {evaluation['n_resamples']:,} draws."
    )


def name_metric(name: str) -> str:
    """Readable name of a key of the training history, e.g. `val_recall_at_10` to `recall@10`."""
    words = name.removeprefix("val_").replace("_at_", "@").split("_")
    return " ".join(_WORDS.get(word, word) for word in words).replace(" ,", ",")


def humanise(key: object) -> str:
    """A key of a summary as words, e.g. `n_failed` to `failed` and `failures_by_reason` to `failures by reason`."""
    return str(key).removeprefix("n_").replace("_", " ")
