"""Lock a feature store between processes, on one machine or through a shared folder.

    FOLDER/lock                  a run over the whole store holds it alone; the workers of an array job share it
    FOLDER/lock-I-of-N           worker I of an array job of N
    FOLDER/writers*              shared by the processes that write features; a new run waits until they are gone

The system releases a lock when its holder ends, however it ends: nothing stale is ever left. An object store has no
locks; leases take their place, see `leases`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.storage.leases import describe_holder, describe_self, explain_holder, find_live, hold_lease
from vmnet_pipeline.storage.paths import is_remote
from vmnet_pipeline.storage.weak_disks import warn_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

logger = logging.getLogger(__name__)

Shard = tuple[int, int]
POLL_S = 0.2
REMOTE_POLL_S = 2.0
LOG_EVERY_S = 30.0


@contextmanager
def lock_run(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Hold a store for one run, or one worker of an array job; wait for writers that an earlier run left.

    Args:
        shard: (I, N) for worker I of an array job of N, which may run next to the others; None for the whole store.

    Raises:
        FeatureStoreError: Another run holds it; the message names its process, machine and start.
        OSError: The folder cannot be written.
    """
    if is_remote(folder):
        kind = "run" if shard is None else f"run-{_name(shard)}"
        with hold_lease(folder, kind, lambda other: _excludes(kind, other)):
            _wait_for_writers(folder, shard)
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if shard is None:
            held.enter_context(_lock_or_refuse(folder / "lock", alone=True))
        else:
            held.enter_context(_lock_or_refuse(folder / "lock", alone=False))
            held.enter_context(_lock_or_refuse(folder / f"lock-{_name(shard)}", alone=True))
            _refuse_other_arrays(folder, shard)
        _wait_for_writers(folder, shard)
        yield


@contextmanager
def share_writing(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Mark this process as writing features until the block or the process ends."""
    if is_remote(folder):
        with hold_lease(folder, _writers_path(folder, shard).name, lambda other: False):
            yield
        return
    with _writers_path(folder, shard).open("a+", encoding="utf-8") as file:
        try_lock(file, alone=False, waits=True)  # a run that looks for writers holds it for a moment
        yield


def _name(shard: Shard) -> str:
    return f"{shard[0]}-of-{shard[1]}"


def _excludes(kind: str, other: str) -> bool:
    """Whether two runs must not work at the same time; different workers of one array job may."""
    if not other.startswith("run"):
        return False
    is_same_array = "-of-" in kind and kind.partition("-of-")[2] == other.partition("-of-")[2]
    return kind == other or not is_same_array


def _writers_path(folder: Path, shard: Shard | None) -> Path:
    return folder / ("writers" if shard is None else f"writers-{_name(shard)}")


@contextmanager
def _lock_or_refuse(path: Path, *, alone: bool) -> Iterator[None]:
    with path.open("a+", encoding="utf-8") as file:
        if not try_lock(file, alone=alone):
            raise FeatureStoreError(explain_holder(path.parent.parent, _find_holder(path)))
        with contextlib.suppress(OSError):  # a full disk is reported where features are written
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(describe_self()).encode())
        yield


def _find_holder(path: Path) -> str:
    """Describe the run that holds a lock; for an array job any of its workers."""
    candidates = [path, *sorted(path.parent.glob(f"{path.name}-*"))] if path.name == "lock" else [path]
    return next(filter(None, map(describe_holder, reversed(candidates))), "another process")


def _refuse_other_arrays(folder: Path, shard: Shard) -> None:
    """Refuse an array of another size, whose workers would take the same items."""
    for path in sorted(folder.glob("lock-*-of-*")):
        if not path.name.endswith(f"-of-{shard[1]}"):
            with _lock_or_refuse(path, alone=False):  # shared, as other workers may look at the same moment
                pass


def _wait_for_writers(folder: Path, shard: Shard | None) -> None:
    """Let workers that outlive their run, as on a cluster, finish their batch."""
    logged = -LOG_EVERY_S
    while _find_writers(folder, shard):
        if time.monotonic() - logged >= LOG_EVERY_S:
            logged = time.monotonic()
            logger.warning("Waiting for workers of an earlier run on %s to finish their batches", folder.parent)
        time.sleep(REMOTE_POLL_S if is_remote(folder) else POLL_S)


def _find_writers(folder: Path, shard: Shard | None) -> list[str]:
    """Writers that are still active: those of this worker of an array job, or all."""
    own = _writers_path(folder, shard).name
    if is_remote(folder):
        kinds = [name.partition(".")[0] for name in find_live(folder)]
        return [kind for kind in kinds if kind == own or (shard is None and kind.startswith(own))]
    active = []
    for path in sorted(folder.glob("writers*") if shard is None else [folder / own]):
        with path.open("a+", encoding="utf-8") as file:
            if not try_lock(file, alone=True):
                active.append(path.name)
    return active


def try_lock(file: TextIO | int, *, alone: bool, waits: bool = False) -> bool:
    """Lock an open file, or the descriptor of a folder, until it is closed; return whether this process has the lock.

    On file systems without locks a file counts as locked, with a warning, and a folder as not locked.

    Args:
        alone: Whether no other process may share the lock.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if isinstance(file, int):
            return False
        warn_once(
            "%s cannot be locked (%s): make sure that only one run works on this folder", file.name, error.strerror
        )
    return True
