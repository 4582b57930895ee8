"""Locks between the processes that work on one feature store, on one machine or through a shared folder.

    FOLDER/lock                  a run over the whole store holds it alone; the workers of an array job share it
    FOLDER/lock-I-of-N           worker I of an array job of N
    FOLDER/writers*              shared by the processes that write features; a new run waits until they are gone

The system takes a lock away when its holder ends, however it ends: nothing stale is ever left. In an object store,
which has no locks, files that are renewed stand for them, see `claims`.
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
from vmnet_pipeline.storage.leases import claim, describe_holder, describe_self, explain_holder, find_live
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
SAY_EVERY_S = 30.0


@contextmanager
def lock_run(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Hold a store for one run, or for one worker of an array job; waits for writers that an earlier run left.

    Args:
        folder: Where the lock files are; made if need be.
        shard: (I, N) of worker I of an array job of N, which leaves the other workers alone; None for the whole store.

    Raises:
        FeatureStoreError: Another run holds it; the message names its process, machine and start.
        OSError: The folder cannot be written.
    """
    if is_remote(folder):
        kind = "run" if shard is None else f"run-{_name(shard)}"
        with claim(folder, kind, lambda other: _excludes(kind, other)):
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
    """Say that this process writes features, until the block ends or the process does."""
    if is_remote(folder):
        with claim(folder, _writers_path(folder, shard).name, lambda other: False):
            yield
        return
    with _writers_path(folder, shard).open("a+", encoding="utf-8") as file:
        try_lock(file, alone=False, waits=True)  # a run that looks whether somebody writes has it for a moment
        yield


def _name(shard: Shard) -> str:
    return f"{shard[0]}-of-{shard[1]}"


def _excludes(kind: str, other: str) -> bool:
    """Whether two runs may not work side by side; workers of one array job may, if they are different ones."""
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
        with contextlib.suppress(OSError):  # a full disk is found, and said, where features are written
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(describe_self()).encode())
        yield


def _find_holder(path: Path) -> str:
    """The run that holds a lock, in words; of an array job any of its workers."""
    candidates = [path, *sorted(path.parent.glob(f"{path.name}-*"))] if path.name == "lock" else [path]
    return next(filter(None, map(describe_holder, reversed(candidates))), "another process")


def _refuse_other_arrays(folder: Path, shard: Shard) -> None:
    """Workers of arrays of different sizes would take the same items.

    They are looked for with a shared lock, as other workers of this array may be looking at the same moment.
    """
    for path in sorted(folder.glob("lock-*-of-*")):
        if path.name.endswith(f"-of-{shard[1]}"):
            continue
        with _lock_or_refuse(path, alone=False):
            pass


def _wait_for_writers(folder: Path, shard: Shard | None) -> None:
    """Let workers that outlived their run, as those of a cluster do, finish their batch."""
    said = -SAY_EVERY_S
    while _find_writers(folder, shard):
        if time.monotonic() - said >= SAY_EVERY_S:
            said = time.monotonic()
            logger.warning("Waiting for workers of an earlier run on %s to finish what they hold", folder.parent)
        time.sleep(REMOTE_POLL_S if is_remote(folder) else POLL_S)


def _find_writers(folder: Path, shard: Shard | None) -> list[str]:
    """Those that still write, of this worker of an array job or of anybody."""
    own = _writers_path(folder, shard).name
    if is_remote(folder):
        kinds = [name.partition(".")[0] for name in find_live(folder)]
        return [kind for kind in kinds if kind == own or (shard is None and kind.startswith(own))]
    paths = folder.glob("writers*") if shard is None else [folder / own]
    return [path.name for path in sorted(paths) if not _is_free(path)]


def _is_free(path: Path) -> bool:
    with path.open("a+", encoding="utf-8") as file:
        return try_lock(file, alone=True)


def try_lock(file: TextIO, *, alone: bool, waits: bool = False) -> bool:
    """Take a lock until `file` is closed; False when somebody else has it. True where the file system has no locks."""
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        warn_once("%s cannot be locked (%s): see that only one run works on this folder", file.name, error.strerror)
    return True
