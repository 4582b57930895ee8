"""Choose where an extraction runs, by the cores and the memory of this machine and the number of items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmnet_pipeline.cores import count_cores
from vmnet_pipeline.free_memory import find_free_memory_mb

if TYPE_CHECKING:
    from vmnet_pipeline.params import ExtractParams

MIN_ITEMS_FOR_PROCESSES = 256  # below, starting processes takes longer than they save
MIN_ITEMS_PER_WORKER = 128
WORKER_MB = 1024  # a model, its engine, a batch of items and the readers; PSS of some 250 MB in musicnn


@dataclass(frozen=True, slots=True)
class Workers:
    """Where an extraction runs.

    Attributes:
        kind: `serial`, `processes` or `dask`.
        n_workers: Threads of `serial`, processes of `processes`.
        n_cores: Cores of one worker; None for those that its cluster gives it.
        reason: Why, for a log.
    """

    kind: str
    n_workers: int
    n_cores: int | None
    reason: str

    def describe(self) -> str:
        """The end of the sentence `extracting N items ...`."""
        how = {
            "serial": f"in this process, threads: {self.n_workers}",
            "processes": f"in processes: {self.n_workers}, cores of each: {self.n_cores}",
            "dask": "on a Dask cluster",
        }
        return f"{how[self.kind]} ({self.reason})"


def choose_workers(params: ExtractParams, n_items: int) -> Workers:
    """Choose kind and number of workers; what the parameters name is taken as it is."""
    cores, memory_mb = count_cores(), find_free_memory_mb()
    kind, reason = _choose_kind(params, n_items, memory_mb)
    if kind == "dask":
        return Workers(kind, 0, None, reason)
    n_workers = params.n_workers or cores
    if kind == "serial":
        return Workers(kind, n_workers, n_workers, reason)
    if params.n_workers is None and params.executor.kind == "auto":
        n_workers = max(1, min(cores, n_items // MIN_ITEMS_PER_WORKER, *_count_fitting(memory_mb)))
    return Workers(kind, n_workers, max(1, cores // n_workers), reason)


def _choose_kind(params: ExtractParams, n_items: int, memory_mb: int | None) -> tuple[str, str]:
    kind, address = params.executor.kind, params.executor.address
    if kind != "auto" or address is not None:
        return ("dask" if kind == "auto" else kind), "extract.executor"
    if n_items < MIN_ITEMS_FOR_PROCESSES:
        return "serial", f"fewer than {MIN_ITEMS_FOR_PROCESSES} items"
    free = "memory unknown" if memory_mb is None else f"{memory_mb / 1024:.1f} GB of memory free"
    if memory_mb is not None and memory_mb < 2 * WORKER_MB:
        return "serial", f"{free}, processes take {WORKER_MB / 1024:g} GB each"
    return "processes", f"{n_items} items, {count_cores()} cores, {free}"


def _count_fitting(memory_mb: int | None) -> list[int]:
    return [] if memory_mb is None else [memory_mb // WORKER_MB]
