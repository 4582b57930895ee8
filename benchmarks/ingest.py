"""How ingestion and planning grow with the number of items, and how fast files are probed.

    python benchmarks/ingest.py                       # 10,000 to 1,000,000 rows, then probing; about 4 minutes
    python benchmarks/ingest.py rows --sizes 10000
    python benchmarks/ingest.py probing --files 500

`rows`: a media.csv of that many items is read, made into a manifest from a cache of generated results of probing,
checked, stored, loaded, split and planned, against an empty store and against a full one whose files are there. Every
size runs in a process of its own, so that its peak of memory is its own. `probing`: real files of a second, each probed
once, and again from the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from vmnet_pipeline.types import MediaInfo

ROOT = Path(__file__).resolve().parents[1]
SIZES = (10_000, 100_000, 1_000_000)
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
FILE_BYTES = 1


@contextmanager
def timed(label: str) -> Iterator[None]:
    started, cpu_started = time.perf_counter(), time.process_time()
    yield
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    print(f"  {label:<54}{seconds:8.2f} s {cpu_s:8.2f} CPU s   peak {read_peak_gb():5.2f} GB", flush=True)


def read_peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


# --- rows


def measure_rows(n_items: int, folder: Path) -> None:
    from vmnet_pipeline.datasets.media_manifest import MediaManifestDataset
    from vmnet_pipeline.extraction.planning import list_media_items, plan_extraction
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.ingestion.discovery import find_items
    from vmnet_pipeline.ingestion.manifest import build_manifest, summarise_manifest
    from vmnet_pipeline.ingestion.splits import split_by_group

    print(f"{n_items} items")
    prepare(write_media_csv, folder / "media.csv", n_items)
    prepare(fill_cache, folder, n_items)
    with timed("media.csv read"):
        items = [find_items(folder)]
    with timed("manifest made: files looked up, joined, groups tied"):
        manifest = build_manifest(items.pop(), refuse, cache_dir=folder / "cache")
    dataset = MediaManifestDataset(filepath=str(folder / "manifest.parquet"))
    with timed("manifest checked and stored"):
        dataset.save(manifest)
    del manifest
    with timed("manifest loaded and checked"):
        manifest = dataset.load()
    print(f"  {summarise_manifest(manifest)['n_usable']} usable in {manifest['group'].nunique()} groups")
    with timed("filtered and split by group"):
        usable = manifest[manifest["status"] == "ok"]
        split_by_group(usable["id"].tolist(), usable["group"].tolist(), SHARES, seed=17)
    del usable
    with timed("planned against an empty store"):
        n_missing = len(plan_extraction(list_media_items(manifest, "audio"), FeatureStore(folder / "store")).missing)
    print(f"  {n_missing} to extract")
    prepare(fill_store, folder)
    with timed("planned against a full store"):
        n_missing = len(plan_extraction(list_media_items(manifest, "audio"), FeatureStore(folder / "store")).missing)
    print(f"  {n_missing} to extract, index {size_of(folder / 'store' / '_index') / 1e6:.0f} MB")


def prepare(make: Callable[..., None], *args: Any) -> None:
    """Make something in another process, so that its memory does not count."""
    with ProcessPoolExecutor(1, get_context("spawn"), sys.path.insert, (0, str(ROOT / "src"))) as pool:
        pool.submit(make, *args).result()


def write_media_csv(path: Path, n_items: int) -> None:
    with path.open("w") as file:
        file.write("id,video,audio,group\n")
        file.writelines(f"clip-{k:07d},films/clip-{k:07d}.mp4,,song-{k // 3:07d}\n" for k in range(n_items))


def make_checksum(number: int) -> str:
    return "sha256:" + hashlib.sha256(b"%d" % number).hexdigest()


def fill_cache(folder: Path, n_items: int) -> None:
    """What probing would have found: every thousandth file is broken, every hundredth a copy of the one before it.

    The films are not there: their size and time are those of a file that is missing.
    """
    import pyarrow as pa

    from vmnet_pipeline.ingestion.probing import PROBE_COLUMNS, name_version
    from vmnet_pipeline.storage.row_log import RowLog

    log = RowLog(folder / "cache" / "probes", PROBE_COLUMNS)
    common = {"size_bytes": 0, "mtime_ns": -1, "version": name_version(), "container": "mp4", "video_codec": "h264"}
    common |= {"audio_codec": "aac", "video_duration_s": 60.0, "audio_duration_s": 60.0, "frame_rate_hz": 25.0}
    common |= {"width": 640, "height": 360, "sample_rate_hz": 44_100, "channels": 2}
    tables = []
    for start in range(0, n_items, 10_000):
        rows = []
        for k in range(start, min(start + 10_000, n_items)):
            row = {"path": f"{folder}/films/clip-{k:07d}.mp4", **common, "checksum": make_checksum(k - (k % 100 == 99))}
            if k % 1000 == 500:
                row = {name: row[name] for name in ("path", "size_bytes", "mtime_ns", "version")}
                row |= {"reason": "unknown_format", "error": "broken"}
            rows.append(row)
        tables.append(pa.Table.from_pylist(rows, schema=log.schema()))
    log.folder.mkdir(parents=True)
    log.compact(pa.concat_tables(tables))


def refuse(path: str) -> MediaInfo:
    raise AssertionError(f"{path} was to be in the cache")


def fill_store(folder: Path) -> None:
    """A feature file and a row for every usable item, as a finished extraction leaves them."""
    import pandas as pd
    import pyarrow as pa

    from vmnet_pipeline.features.index import ROW_COLUMNS, FeatureIndex
    from vmnet_pipeline.features.store import FeatureStore
    from vmnet_pipeline.storage.row_log import RowLog

    store, manifest = FeatureStore(folder / "store"), pd.read_parquet(folder / "manifest.parquet")
    usable = manifest[manifest["status"] == "ok"]
    store.folder.mkdir(parents=True)
    for item_id in usable["id"]:
        with open(f"{store.folder}/{item_id}.npy", "wb") as file:  # noqa: PTH123
            file.write(b"x" * FILE_BYTES)
    rows = usable[["id"]].assign(source_checksum=usable["audio_checksum"], checksum=usable["audio_checksum"].str[7:])
    rows = rows.assign(status="done", dtype="float32", n_valid=60, size_bytes=FILE_BYTES, seconds=0.1)
    schema = RowLog(store.folder, ROW_COLUMNS).schema()
    empty = {name: pa.nulls(len(rows), schema.field(name).type) for name in schema.names if name not in rows}
    columns = [empty[name] if name in empty else pa.array(rows[name], schema.field(name).type) for name in schema.names]
    store.replace_index(FeatureIndex(pa.table(columns, schema=schema)))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# --- probing


def measure_probing(n_files: int, folder: Path, workers: list[int]) -> None:
    from vmnet_pipeline.ingestion.probing import probe_files
    from vmnet_pipeline.media.probe import probe_in_sandbox, probe_media
    from vmnet_pipeline.media.sandbox import Sandbox
    from vmnet_pipeline.params import IngestParams

    limits = IngestParams(media_dir="").limits
    paths = make_files(folder, n_files)
    print(f"probing {n_files} files of {Path(paths[0]).stat().st_size / 1e3:.0f} kB, load {os.getloadavg()[0]:.1f}")
    for n_workers in workers:
        with ThreadPoolExecutor(n_workers) as pool, ProcessPoolExecutor(n_workers) as processes:
            measure_rate(f"{n_workers} threads", pool, probe_media, paths)
            measure_rate(f"{n_workers} processes", processes, probe_media, paths)
        with Sandbox(limits) as sandbox, ThreadPoolExecutor(n_workers) as pool:
            measure_rate(f"{n_workers} sandboxed", pool, partial(probe_in_sandbox, sandbox), paths)
    with Sandbox(limits) as sandbox:
        for label in ("first time", "from the cache"):
            started = time.perf_counter()
            rows = probe_files(paths, partial(probe_in_sandbox, sandbox), cache_dir=folder / "cache")
            print(f"  probe_files, {label:<15}{len(rows) / (time.perf_counter() - started):8.0f} files/s")


def measure_rate(label: str, pool: Executor, probe: Callable[[str], MediaInfo], paths: list[str]) -> None:
    """Files per second, and the processor time of all processes for one, which others' work hardly changes."""
    list(pool.map(probe, paths[:64]))  # started, imports done
    started, busy_started = time.perf_counter(), read_busy_s()
    list(pool.map(probe, paths, chunksize=16))
    seconds, busy_s = time.perf_counter() - started, read_busy_s() - busy_started
    print(f"  {label:<14}{len(paths) / seconds:6.0f} files/s  {1e3 * busy_s / len(paths):6.2f} processor ms per file")


def read_busy_s() -> float:
    """Processor time of this process and its children, those that still live included."""
    total = time.process_time()
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def make_files(folder: Path, n_files: int) -> list[str]:
    """Copies of one small film: the system caches them, so that this measures the program and not the disk."""
    from vmnet_pipeline.demo import make_clip

    content = make_clip(folder / "one.mp4", duration_s=1.0, width=64, height=48).read_bytes()
    paths = [folder / f"{k:05d}.mp4" for k in range(n_files)]
    for k, path in enumerate(paths):
        path.write_bytes(content + b"%d" % k)
    return [str(path) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["rows", "probing"], help="rows, probing; both by default")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    if "rows" in args.what and not args.in_process:
        for size in args.sizes:
            command = [sys.executable, __file__, "rows", "--sizes", str(size), "--in-process"]
            subprocess.run(command, check=True)
    with tempfile.TemporaryDirectory() as folder:
        if args.in_process:
            measure_rows(args.sizes[0], Path(folder))
        elif "probing" in args.what:
            measure_probing(args.files, Path(folder), args.workers)


if __name__ == "__main__":
    main()
