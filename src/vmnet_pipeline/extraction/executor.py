"""Protocol between the driver of an extraction and its workers, wherever they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vmnet_pipeline.backends.base import FeatureBackend
    from vmnet_pipeline.features.index import FeatureRow
    from vmnet_pipeline.params import LimitParams
    from vmnet_pipeline.storage.locks import Shard
    from vmnet_pipeline.types import MediaItem


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs besides the items; small, and picklable as long as the backend is.

    Attributes:
        run_id: Unique; a worker keeps its loaded backend while it stays the same.
        backend: Not loaded: workers do that for themselves.
        folder: The feature store, absolute; workers write to it.
        shard: Which part of an array job this is.
        batch_size: Entries per pass through the network.
        n_cores: Cores of one worker; None for those that its cluster gives it.
        item_timeout_s: A worker that finishes no item for so long ends itself.
        limits: What reading one media file may cost.
    """

    run_id: str
    backend: FeatureBackend
    folder: Path
    shard: Shard | None
    batch_size: int
    n_cores: int | None
    item_timeout_s: float | None
    limits: LimitParams


@dataclass(frozen=True, slots=True)
class Event:
    """Progress of one worker.

    Attributes:
        worker: Its name.
        state: `working`: it has finished the items of `rows`. `ready`: its batch. `died`: it has ended.
        rows: Items finished since the last event; their rows are in the index already.
    """

    worker: str
    state: Literal["working", "ready", "died"]
    rows: tuple[FeatureRow, ...] = ()


class Executor(Protocol):
    """Workers that extract batches of items and write the features themselves.

    A name never comes back: the worker in the place of a lost one has another.
    """

    def ready(self) -> list[str]:
        """Names of the workers that can take a batch, each safe as part of a file name."""
        ...

    def size(self) -> int:
        """How many workers there are now."""
        ...

    def start(self, worker: str, writer: str, items: Sequence[MediaItem]) -> None:
        """Give a ready worker a batch; it writes its rows as `writer`."""
        ...

    def wait(self) -> list[Event]:
        """Wait some time for events since the last call; raise what no worker recovers from, e.g. a full disk."""
        ...

    def close(self) -> None:
        """Shut down, giving workers a grace period to finish their current item."""
        ...
