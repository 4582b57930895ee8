"""The manifest of a collection: one row per item, made in columns so that a million rows take seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.probing import probe_files
from vmnet_pipeline.ingestion.schemas import MANIFEST_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from vmnet_pipeline.ingestion.collect import SourceItem
    from vmnet_pipeline.records import MediaInfo

_SIDE_COLUMNS = {
    "video": ("video_codec", "video_duration_s", "width", "height", "frame_rate_hz"),
    "audio": ("audio_codec", "audio_duration_s", "sample_rate_hz", "channels"),
}
_CHECKSUMS = ["video_checksum", "audio_checksum"]


def build_manifest(
    items: Sequence[SourceItem],
    probe: Callable[[str], MediaInfo],
    *,
    cache_dir: Path | None = None,
    n_workers: int | None = None,
) -> pd.DataFrame:
    """Probe every file once and make the manifest: one row per item, usable or not.

    Args:
        items: What `ingestion.find_items` found.
        probe: `media.probe.probe_media`.
        cache_dir: Where the results of probing are kept between runs; None to keep none.
        n_workers: Files probed at the same time; all cores by default.

    Returns:
        Table of `schemas.MANIFEST_COLUMNS`; `status` is ok, failed or duplicate.
    """
    paths = sorted({path for item in items for path in (item.video, item.audio) if path and not item.reason})
    probed = probe_files(paths, probe, cache_dir=cache_dir, n_workers=n_workers)
    return assemble_manifest(items, probed)


def assemble_manifest(items: Sequence[SourceItem], probed: pd.DataFrame) -> pd.DataFrame:
    """Join items with what is known of their files, columns of `probing.PROBE_COLUMNS`."""
    manifest = _tabulate(items)
    probed = probed.set_index("path")
    for side in ("video", "audio"):
        _describe_side(manifest, side, probed)
    manifest["status"] = manifest["status"].mask(manifest["reason"] != "", "failed")
    _mark_duplicates(manifest)
    manifest["group"] = _tie_groups(manifest)
    texts = [name for name, dtype in MANIFEST_COLUMNS.items() if dtype == "str"]
    manifest[texts] = manifest[texts].fillna("")
    return manifest[list(MANIFEST_COLUMNS)].astype(MANIFEST_COLUMNS)


def _tabulate(items: Sequence[SourceItem]) -> pd.DataFrame:
    import pandas as pd

    names = {"id": "id", "reason": "reason", "error": "error", "group": "group"}
    names |= {"video_path": "video", "audio_path": "audio"}
    columns = {
        column: pd.Series([getattr(item, name) for item in items], dtype="str") for column, name in names.items()
    }
    return pd.DataFrame(columns).assign(status="ok", duplicate_of="")


def _describe_side(manifest: pd.DataFrame, side: str, probed: pd.DataFrame) -> None:
    """Add what is known of the file of one side; the first thing that is wrong with an item is its reason."""
    path, what = f"{side}_path", "picture" if side == "video" else "sound"
    found = probed.reindex(manifest[path]).set_axis(manifest.index)
    manifest[[f"{side}_checksum", f"{side}_container"]] = found[["checksum", "container"]]
    manifest[list(_SIDE_COLUMNS[side])] = found[list(_SIDE_COLUMNS[side])]
    absent = found["checksum"].notna() & found[f"{side}_codec"].isna()
    found.loc[absent, "reason"] = f"no_{side}_stream"
    found.loc[absent, "error"] = manifest.loc[absent, path].str.rsplit("/", n=1).str[-1] + f" has no {what}"
    failed = found["reason"].notna() & (manifest["reason"] == "")
    for name in ("reason", "error"):
        manifest.loc[failed, name] = found.loc[failed, name]


def _mark_duplicates(manifest: pd.DataFrame) -> None:
    """An item whose picture and sound are byte for byte those of an earlier usable one is not used again."""
    usable = manifest.loc[manifest["status"] == "ok", ["id", *_CHECKSUMS]]
    usable = usable[usable.duplicated(_CHECKSUMS, keep=False)]
    original = usable.groupby(_CHECKSUMS)["id"].transform("first")
    copies = original[original != usable["id"]]
    manifest.loc[copies.index, ["status", "reason"]] = "duplicate"
    manifest.loc[copies.index, "duplicate_of"] = copies
    manifest.loc[copies.index, "error"] = "same content as " + copies


def _tie_groups(manifest: pd.DataFrame) -> pd.Series:
    """The group of every item: the given one, else its id; items that share a file's content share a group.

    These are the connected components of a graph of group names and checksums: a song used in two videos ties their
    groups together. A component is called after a given group where it has one, the first by name.
    """
    import numpy as np
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    given = manifest["group"] != ""
    own = ("group:" + manifest["group"]).where(given, "item:" + manifest["id"])
    owners, names = pd.factorize(own)
    sums, checksums = pd.factorize(pd.concat([manifest[name] for name in _CHECKSUMS]))
    ties = sums >= 0
    n_nodes = len(names) + len(checksums)
    edges = (np.tile(owners, 2)[ties], len(names) + sums[ties])
    graph = coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][: len(names)]
    called = pd.Series(names, dtype="str")
    tied = pd.Series(component).duplicated(keep=False)
    called[tied] = called[tied].groupby(component[tied]).transform("min")
    return called.str.split(":", n=1).str[1].take(owners).set_axis(manifest.index)


def check_usable(manifest: pd.DataFrame, media_dir: str | Path) -> None:
    """Refuse a collection of which nothing can be used.

    Raises:
        IngestError: No row is ok; the message tells the commonest reasons.
    """
    if (manifest["status"] == "ok").any():
        return
    reasons = manifest["reason"].value_counts()
    listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.head(3).items())
    example = manifest.iloc[0]
    raise IngestError(
        f"None of the {len(manifest)} items in {media_dir} can be used ({listed}); the first: {example['id']!r}: "
        f"{example['error']}. Videos need sound and picture: give separate files in audio/ and video/ or a media.csv."
    )


def summarise_manifest(manifest: pd.DataFrame) -> dict[str, Any]:
    """Counts for people: items, usable, duplicates, failures by reason, groups and hours of usable sound."""
    usable = manifest[manifest["status"] == "ok"]
    failed = manifest[manifest["status"] == "failed"]
    return {
        "n_items": len(manifest),
        "n_usable": len(usable),
        "n_failed": len(failed),
        "n_duplicates": int((manifest["status"] == "duplicate").sum()),
        "n_groups": int(usable["group"].nunique()),
        "audio_hours": round(float(usable["audio_duration_s"].sum()) / 3600, 4),
        "failures_by_reason": {
            str(key): int(count) for key, count in failed["reason"].value_counts().sort_index().items()
        },
        "failed_items": failed[["id", "reason", "error"]].head(100).to_dict("records"),
    }
