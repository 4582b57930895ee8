"""What `real.py` prints: means, spread and paired differences of several splits, as a Markdown table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from real_pairs import take_rows

from vmnet_pipeline.evaluation.results import DIRECTIONS
from vmnet_pipeline.experiments.comparison import Row, list_contributions, summarise_rows
from vmnet_pipeline.params import BASELINES, CompareParams
from vmnet_pipeline.types import PairArrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KS = (1, 5, 10)
CCA, VMNET = "cca", "vmnet"


def summarise(
    title: str,
    pairs: PairArrays,
    splits: Sequence[Mapping[str, np.ndarray]],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """Means over all test queries of all splits, their spread between splits, paired differences with intervals."""
    tests = [take_rows(pairs, split["test"]) for split in splits]
    queries = PairArrays(
        tuple(f"{number}/{key}" for number, test in enumerate(tests) for key in test.ids),
        tuple(group for test in tests for group in test.groups),
        np.empty(0), np.empty(0),
    )  # fmt: skip
    per_split = {
        name: [list_contributions(np.array(item["ranks"]), KS) for item in items] for name, items in results.items()
    }
    rows = [
        Row(
            name, "baseline" if name in BASELINES else "variant", np.concatenate(values, axis=1)[None],
            np.array([np.median(item["ranks"], axis=1) for item in results[name]]), val_mrr=(),
        )
        for name, values in per_split.items()
    ]  # fmt: skip
    summary: dict[str, Any] = {
        "title": title,
        "n_pairs": len(pairs),
        "n_groups": len(set(pairs.groups)),
        "sizes": [{subset: len(own) for subset, own in split.items()} for split in splits],
        "chance": {k: float(np.mean([min(k / len(test), 1.0) for test in tests])) for k in KS},
        "rows": {},
    }
    for against in (name for name in (CCA, VMNET) if name in results):
        settings = CompareParams(
            variants={name: {} for name in [*results, "none"] if name not in BASELINES},
            seeds=(0,),
            against=against,
            ks=KS,
        )
        for row in summarise_rows(rows, queries, settings)["rows"]:
            name = row["name"]
            entry = summary["rows"].setdefault(name, {"figures": row["figures"], "median_rank": row["median_rank"]})
            entry[f"against_{against}"] = row["difference"]
            split_means = np.array([values.mean(axis=1) for values in per_split[name]])
            entry["per_split"] = dict(zip(row["figures"], split_means.T.tolist(), strict=True))
            entry["median_ranks"] = [np.median(item["ranks"], axis=1).tolist() for item in results[name]]
            entry["seconds"] = float(np.mean([item["seconds"] for item in results[name]]))
            entry["verdict"] = judge(name, entry, summary["chance"])
    return summary


def judge(name: str, entry: Mapping[str, Any], chance: Mapping[int, float]) -> str:
    """In words, what the intervals of R@10 and of its differences say."""
    own = entry["figures"]["both/recall_at_10"]
    said = ["not better than chance"] if own["low"] is not None and own["low"] <= chance[10] else []
    for against, title in ((CCA, "CCA"), (VMNET, "VM-NET")):
        difference = entry.get(f"against_{against}", {}).get("both/recall_at_10")
        if name == against or difference is None or difference["low"] is None:
            continue
        better, worse = difference["low"] > 0, difference["high"] < 0
        said.append(f"{'better than' if better else 'worse than' if worse else 'not different from'} {title}")
    return "; ".join(said)


def lay_out(summary: Mapping[str, Any]) -> str:
    """Markdown table of one set of features."""
    sizes = summary["sizes"]
    span = {subset: _span([split[subset] for split in sizes]) for subset in ("train", "val", "test")}
    head = ["variant", *(f"R@{k}" for k in KS), "R@10 interval", "spread", "MRR", "median rank", "R@10 against CCA",
            "R@10 against VM-NET", "in words", "s"]  # fmt: skip
    return "\n".join([
        f"**{summary['title']}**: {summary['n_pairs']:,} pairs in {summary['n_groups']:,} groups, {len(sizes)} splits; "
        f"{span['train']} training, {span['val']} validation, {span['test']} test pairs. Mean of both directions "
        "(music->video / video->music) in %; differences in points; 95 % intervals. Expected of chance: R@10 "
        f"{100.0 * summary['chance'][10]:.1f} %.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(lay_out_row(name, entry) for name, entry in summary["rows"].items()),
    ])  # fmt: skip


def lay_out_row(name: str, entry: Mapping[str, Any]) -> str:
    def cell(metric: str) -> str:
        both, there, back = (100.0 * entry["figures"][f"{side}/{metric}"]["value"] for side in ("both", *DIRECTIONS))
        return f"{both:.1f} ({there:.1f} / {back:.1f})"

    each = entry["per_split"]["both/recall_at_10"]
    spread = f"{100.0 * np.std(each, ddof=1):.1f}" if len(each) > 1 else ""
    there, back = (entry["median_rank"][direction] for direction in DIRECTIONS)
    cells = [
        name,
        *(cell(f"recall_at_{k}") for k in KS),
        _interval(entry["figures"]["both/recall_at_10"]),
        spread,
        cell("mrr"),
    ]
    cells += [f"{(there + back) / 2:.0f} ({there:.0f} / {back:.0f})"]
    cells += ["" if name == against else _difference(entry.get(f"against_{against}")) for against in (CCA, VMNET)]
    return f"| {' | '.join([*cells, entry['verdict'], format(entry['seconds'], '.0f')])} |"


def _interval(estimate: Mapping[str, Any]) -> str:
    return "" if estimate["low"] is None else f"{100.0 * estimate['low']:.1f} to {100.0 * estimate['high']:.1f}"


def _difference(difference: Mapping[str, Any] | None) -> str:
    found = (difference or {}).get("both/recall_at_10")
    if found is None or found["low"] is None:
        return ""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100.0 * found[name] for name in ("value", "low", "high")))


def _span(counts: Sequence[int]) -> str:
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
