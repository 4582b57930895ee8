"""Labels of directions, pools and settings, shared by table, plots and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTION_LABELS = {"music_to_video": "music → video", "video_to_music": "video → music"}
_WORDS = {"mrr": "MRR", "loss": "loss", "xy": ", music → video", "yx": ", video → music"}


def describe_pool(evaluation: Mapping[str, Any]) -> str:
    """Describe what was searched, e.g. `pool of 50 (whole gallery)`."""
    if evaluation["n_pools"] > 1:
        return f"{evaluation['n_pools']} pools of {evaluation['pool_size']:,}"
    return f"pool of {evaluation['pool_size']:,} ({'mismatched pairs' if evaluation['shuffled'] else 'whole gallery'})"


def describe_method(evaluation: Mapping[str, Any]) -> str:
    """Describe how ranks and intervals were computed, in one sentence."""
    unit = "groups" if evaluation["resampled_by"] == "group" else "queries"
    relevant = "any item of the same group" if evaluation["positives"] == "group" else "the item itself"
    neighbours = evaluation.get("csls_neighbours")  # absent in files of earlier versions
    similarity = f"similarity: CSLS over {neighbours} neighbours; " if neighbours else ""
    if evaluation.get("similarity") == "centred":
        similarity = "similarity: cosine without the mean of each side; "
    return (
        f"Relevant: {relevant}; {similarity}ties: {evaluation['ties']}; "
        f"{100 * evaluation['confidence_level']:g} % intervals: percentile bootstrap over {unit}, "
        f"{evaluation['n_resamples']:,} draws."
    )


def describe_extras(evaluation: Mapping[str, Any]) -> str:
    """Describe recall in the smallest random pools and the hubs of both directions briefly."""
    directions, parts = list(evaluation["directions"].values()), []
    pools = directions[0].get("pools") or {}
    if pools:
        size = min(pools, key=int)
        k = max(choose_pool_ks(pools[size]["recall"]), key=int)
        shares = " / ".join(f"{100 * metrics['pools'][size]['recall'][k]['value']:.1f}" for metrics in directions)
        parts.append(f"Pools of {int(size):,}: R@{k} {shares} %.")
    hubs = [metrics["hubness"] for metrics in directions if "hubness" in metrics]
    if hubs:
        most, never = (f"{hub['max']:.0f}" for hub in hubs), (f"{100 * hub['unreached']:.1f}" for hub in hubs)
        parts.append(f"Hubs: up to {' / '.join(most)} times in a top {hubs[0]['k']:.0f}; {' / '.join(never)} % never.")
    return " ".join(parts)


def describe_reliability(evaluation: Mapping[str, Any]) -> str:
    """How far the probabilities of answers are from what is observed; empty where scores are not calibrated."""
    found = evaluation.get("reliability")
    if not found:
        return ""
    return (
        f"Expected calibration error of the {found['top_k']} best answers: "
        f"{100 * found['expected_calibration_error']:.2f} points; {100 * found['ece_of_perfect']:.2f} by chance alone; "
        f"calibrated on {found['n_held_out']:,} held-out pairs."
    )


def choose_pool_ks(recall: Mapping[str, Any]) -> list[str]:
    """Choose the cut-offs up to 10, which papers report; the first one if all are larger."""
    return [k for k in recall if int(k) <= 10] or [next(iter(recall))]


def format_estimate(
    estimate: Mapping[str, Any], scale: int, digits: int, sign: str = ""
) -> tuple[str, tuple[str, str] | None]:
    """Format the value, times `scale`, and the interval of a metric; `sign` is `+` for differences.

    Example:
        >>> format_estimate({"value": 0.5, "low": 0.42, "high": 0.6}, 100, 1)
        ('50.0', ('42.0', '60.0'))
    """
    value, low, high = (
        "" if number is None else f"{scale * number:{sign}.{digits}f}"
        for number in (estimate[part] for part in ("value", "low", "high"))
    )
    return value, (low, high) if low and high else None


def name_metric(name: str) -> str:
    """Readable name of a key of the training history, e.g. `val_recall_at_10` to `recall@10`."""
    words = name.removeprefix("val_").replace("_at_", "@").split("_")
    return " ".join(_WORDS.get(word, word) for word in words).replace(" ,", ",")


def humanise(key: object) -> str:
    """Turn a key of a summary into words, e.g. `n_failed` into `failed`, `failures_by_reason` into three words."""
    return str(key).removeprefix("n_").replace("_", " ")
