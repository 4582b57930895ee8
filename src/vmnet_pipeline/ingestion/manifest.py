"""The manifest of a collection: one row per item, built by columns so that a million rows take seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.probing import probe_files
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS
from vmnet_pipeline.ingestion.ties import tie_groups
from vmnet_pipeline.storage.memory import release_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from vmnet_pipeline.ingestion.discovery import SourceItem
    from vmnet_pipeline.types import MediaInfo

_SIDE_COLUMNS = {
    "video": ("container", "video_codec", "video_duration_s", "width", "height", "frame_rate_hz", "video_warning"),
    "audio": ("container", "audio_codec", "audio_duration_s", "sample_rate_hz", "channels", "audio_warning"),
}
_CHECKSUMS = ["video_checksum", "audio_checksum"]


def build_manifest(
    items: Sequence[SourceItem],
    probe: Callable[[str], MediaInfo],
    *,
    cache_dir: Path | None = None,
    n_workers: int | None = None,
) -> pd.DataFrame:
    """Probe every file once and build the manifest, one row per item, usable or not; arguments as in `probe_files`.

    Returns:
        Table of `schemas.MANIFEST_COLUMNS`; `status` is ok, failed or duplicate.
    """
    paths = sorted({path for item in items for path in (item.video, item.audio) if path and not item.reason})
    manifest = _tabulate(items)
    del items  # frees a million objects unless the caller keeps them
    _describe_files(manifest, probe_files(paths, probe, cache_dir=cache_dir, n_workers=n_workers))
    release_memory()
    manifest["status"] = manifest["status"].mask(manifest["reason"] != "", "failed")
    _mark_duplicates(manifest)
    manifest["group"] = tie_groups(manifest["id"], manifest["group"], [manifest[name] for name in _CHECKSUMS])
    manifest[_CHECKSUMS] = manifest[_CHECKSUMS].fillna("")
    release_memory()
    return manifest[list(MANIFEST_COLUMNS)]


def _tabulate(items: Sequence[SourceItem]) -> pd.DataFrame:
    import pandas as pd

    names = {"id": "id", "reason": "reason", "error": "error", "group": "group"}
    names |= {"video_path": "video", "audio_path": "audio"}
    columns = {
        column: pd.Series([getattr(item, name) for item in items], dtype="str") for column, name in names.items()
    }
    return pd.DataFrame(columns).assign(status="ok", duplicate_of="")


def _describe_files(manifest: pd.DataFrame, probed: pd.DataFrame) -> None:
    """Add the columns `probing.PROBE_COLUMNS` of both sides, one by one: joining whole rows would double the memory."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    from pandas.api.extensions import take

    known = pa.array(probed["path"])
    for side in ("video", "audio"):
        places = pc.index_in(pa.array(manifest[f"{side}_path"]), value_set=known).fill_null(-1).to_numpy()

        def pick(column: str, places: np.ndarray = places) -> pd.Series:
            return pd.Series(take(probed[column].array, places, allow_fill=True), index=manifest.index)

        manifest[f"{side}_checksum"] = pick("checksum")
        for column in _SIDE_COLUMNS[side]:
            name = f"{side}_{column}" if column == "container" else column
            values = pick(column)
            dtype: Any = MANIFEST_COLUMNS[name]
            manifest[name] = values.fillna("") if dtype == "str" else values.astype(dtype)
        _explain_failures(manifest, side, pick("reason"), pick("error"))


def _explain_failures(manifest: pd.DataFrame, side: str, reason: pd.Series, error: pd.Series) -> None:
    """Record why the file of one side cannot be used; the first fault of an item is its reason."""
    absent = manifest[f"{side}_checksum"].notna() & (manifest[f"{side}_codec"] == "")
    names = manifest.loc[absent, f"{side}_path"].str.rsplit("/", n=1).str[-1]
    reason[absent] = f"no_{side}_stream"
    error[absent] = names + f" has no {side}"
    failed = reason.notna() & (manifest["reason"] == "")
    manifest.loc[failed, "reason"] = reason[failed]
    manifest.loc[failed, "error"] = error[failed]


def _mark_duplicates(manifest: pd.DataFrame) -> None:
    usable = manifest.loc[manifest["status"] == "ok", ["id", *_CHECKSUMS]]
    usable = usable[usable.duplicated(_CHECKSUMS, keep=False)]
    original = usable.groupby(_CHECKSUMS)["id"].transform("first")
    copies = original[original != usable["id"]]
    manifest.loc[copies.index, ["status", "reason"]] = "duplicate"
    manifest.loc[copies.index, "duplicate_of"] = copies
    manifest.loc[copies.index, "error"] = "same content as " + copies


def check_usable(manifest: pd.DataFrame, media_dir: str | Path) -> None:
    """Refuse a collection of which nothing can be used.

    Raises:
        IngestError: No row is ok; the message lists the most frequent reasons.
    """
    if (manifest["status"] == "ok").any():
        return
    reasons = manifest["reason"].value_counts()
    listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.head(3).items())
    example = manifest.iloc[0]
    raise IngestError(
        f"None of the {len(manifest)} items in {media_dir} can be used ({listed}); the first: {example['id']!r}: "
        f"{example['error']}. Items of pairs need audio and video: give separate files in audio/ and video/ or a "
        "media.csv; tracks or videos alone are a library: --params library=FOLDER"
    )


def summarise_manifest(manifest: pd.DataFrame) -> dict[str, Any]:
    """Count items, usable ones, duplicates, failures by reason, groups, and hours of usable audio."""
    usable = manifest[manifest["status"] == "ok"]
    failed = manifest[manifest["status"] == "failed"]
    warned = usable[(usable["video_warning"] != "") | (usable["audio_warning"] != "")]
    return {
        "n_items": len(manifest),
        "n_usable": len(usable),
        "n_failed": len(failed),
        "n_duplicates": int((manifest["status"] == "duplicate").sum()),
        "n_groups": int(usable["group"].nunique()),
        "audio_hours": round(float(usable["audio_duration_s"].sum()) / 3600, 4),
        "failures_by_reason": failed["reason"].value_counts().sort_index().to_dict(),
        "failed_items": failed[["id", "reason", "error"]].head(100).to_dict("records"),
        "n_warned": len(warned),
        "warned_items": warned[["id", "video_warning", "audio_warning"]].head(100).to_dict("records"),
    }


def describe_counts(summary: dict[str, Any]) -> str:
    """Format the counts of `summarise_manifest` in one line."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["failures_by_reason"].items())
    counts = f"{summary['n_items']} items: {summary['n_usable']} usable in {summary['n_groups']} groups, "
    counts += f"{summary['n_duplicates']} duplicates, {summary['n_failed']} failed"
    counts += f" ({reasons})" if reasons else ""
    return f"{counts}; {summary['n_warned']} with a warning" if summary["n_warned"] else counts


def measure_subsets(
    ids: Mapping[str, Sequence[str]], groups: Mapping[str, str], manifest: pd.DataFrame | None = None
) -> dict[str, dict[str, Any]]:
    """Measure the subsets of a split, given as ids, with the group of each id.

    Returns:
        Subset to `n_items`, `n_groups` and, where the manifest has lengths, `audio_hours`, `shortest_s`, `median_s` and
        `longest_s`.
    """
    lengths = None if manifest is None else manifest.set_index("id")["audio_duration_s"]
    subsets: dict[str, dict[str, Any]] = {}
    for subset, own in ids.items():
        subsets[subset] = {"n_items": len(own), "n_groups": len({groups[item_id] for item_id in own})}
        known = None if lengths is None else lengths.reindex(list(own)).dropna()
        if known is not None and len(known):
            subsets[subset] |= {"audio_hours": float(known.sum()) / 3600, "shortest_s": float(known.min())}
            subsets[subset] |= {"median_s": float(known.median()), "longest_s": float(known.max())}
    return subsets
