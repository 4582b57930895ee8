"""Show a search for settings as a table and as text for the console, and its best settings as YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.params import flatten_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas import DataFrame

_SHOWN = 5
_WIDTH = 100


def tabulate_trials(tuning: Mapping[str, Any]) -> DataFrame:
    """Tabulate `tuning.search_settings`: one row per trial, one column per setting."""
    import pandas as pd

    rows = [{**row, **row["values"]} for row in tuning["trials"]]
    return pd.DataFrame(rows).drop(columns="values")


def write_settings(tuning: Mapping[str, Any]) -> str:
    """Write the best settings as a parameter file, headed by the same settings as an argument of `--params`."""
    import yaml

    best, names = tuning["best"], flatten_settings({"train": tuning["train"]})
    argument = ",".join(f"{name}={'null' if value is None else value}" for name, value in names.items())
    return (
        f"# Trial {best['number']} of {len(tuning['trials'])}, validation MRR {best['value']:.4f}. "
        "Copy this file to conf/local/parameters_train.yml, or give\n"
        f"# --params {argument}\n{yaml.safe_dump({'train': tuning['train']}, sort_keys=True)}"
    )


def format_tuning(tuning: Mapping[str, Any]) -> str:
    """Lay out how the trials ended and the best of them."""
    trials = tuning["trials"]
    counts = {state: sum(row["state"] == state for row in trials) for state in ("complete", "pruned", "failed")}
    title = "Search: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [title, "=" * len(title), f"{'trial':>5}{'MRR on validation':>20}{'epochs':>9}{'s':>8}  settings"]
    lines.append("-" * _WIDTH)
    ranked = sorted((row for row in trials if row["state"] == "complete"), key=lambda row: -row["value"])
    for row in ranked[:_SHOWN]:
        values = ", ".join(f"{name}={_shorten(value)}" for name, value in row["values"].items())
        lines.append(f"{row['number']:>5}{row['value']:>20.4f}{row['epochs']:>9}{row['seconds']:>8.1f}  {values}")
    failed = [f"{row['number']:>5} failed: {row['error']}"[:_WIDTH] for row in trials if row["state"] == "failed"]
    return "\n".join([*lines, *failed[:_SHOWN]])


def _shorten(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
