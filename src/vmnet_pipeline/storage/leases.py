"""Leases on a folder of an object store, which has no lock that ends with the process holding it.

    FOLDER/claims/KIND.TOKEN.json     pid, host and start of a live process

A process writes its lease first and lists the others afterwards. Listings are consistent in all supported object
stores, so of two processes that start at once at least one sees the other, and conflicting ones never both continue. A
lease is renewed while its process lives and expires `EXPIRES_S` after the last renewal by the clock of the store;
immediately, when its process ran on this machine and has ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import FeatureStoreError
from vmnet_pipeline.storage.checksummed import parse_json
from vmnet_pipeline.storage.paths import list_files, storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

RENEW_S = 10.0
EXPIRES_S = 60.0
FOLDER = "claims"


@contextmanager
def hold_lease(folder: Path, kind: str, conflicts: Callable[[str], bool]) -> Iterator[None]:
    """Hold a lease on `folder` until the block ends.

    Args:
        kind: Task of this process, safe as a file name and without a dot.
        conflicts: Whether a process of another kind must not work there at the same time.

    Raises:
        FeatureStoreError: A conflicting process holds a lease, or this one was suspended until its own expired.
    """
    own = _Lease(folder, kind)
    own.renew()
    try:
        others = find_live(folder, than=own.path)
        for name in sorted(name for name in others if conflicts(name.partition(".")[0])):
            holder = describe_holder(folder / FOLDER / name) or "another process"
            raise FeatureStoreError(
                f"{explain_holder(folder.parent, holder)} One that was killed counts as ended after {EXPIRES_S:.0f} s."
            )
        own.start()
        yield
        own.check()
    finally:
        own.end()


def find_live(folder: Path, *, than: Path | None = None) -> list[str]:
    """Names of the live leases in `folder`, except `than`; expired ones are removed.

    The clock is that of the store, read from the lease `than`, which was just written, or from a new file.
    """
    clock = than or folder / FOLDER / f"clock.{uuid.uuid4().hex}.json"
    if than is None:
        clock.write_bytes(b"{}")
    listing = list_files(folder / FOLDER)
    if than is None:
        clock.unlink(missing_ok=True)
    now_s = listing[clock.name].modified_s
    live = []
    for name, found in listing.items():
        if name == clock.name:
            continue
        if now_s - found.modified_s < EXPIRES_S and not _has_ended(folder / FOLDER / name):
            live.append(name)
        else:
            with contextlib.suppress(*storage_errors()):
                (folder / FOLDER / name).unlink(missing_ok=True)
    return [name for name in live if not name.startswith("clock.")]


def _has_ended(path: Path) -> bool:
    """Whether the process of a lease ran on this machine and has ended."""
    try:
        holder = parse_json(path.read_text(encoding="utf-8"))
        if not _name_machine() or holder["machine"] != _name_machine():
            return False
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except storage_errors(ValueError, KeyError, TypeError):
        return False
    return False


def _name_machine() -> str:
    """Identify this boot of this machine or container, within which a process id is unique; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def describe_self() -> dict[str, Any]:
    """Content of a lease or a lock file for this process."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def describe_holder(path: Path) -> str:
    """Describe the process named in a lease or a lock file; empty if there is none."""
    try:
        holder = parse_json(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except storage_errors(ValueError, KeyError, TypeError):
        return ""


def explain_holder(store: Path, holder: str) -> str:
    """Say why no run can begin on a store, and what to do."""
    return (
        f"The feature store {store} is being worked on by {holder}. Wait until it has ended, or stop it, and run "
        "again: everything finished is kept."
    )


class _Lease:
    """A file that a thread renews."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.path = folder / FOLDER / f"{kind}.{uuid.uuid4().hex}.json"
        self._content = json.dumps({**describe_self(), "machine": _name_machine()}).encode()
        self._ended = threading.Event()
        self._is_lost = False
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def renew(self) -> None:
        self.path.write_bytes(self._content)

    def start(self) -> None:
        self._thread.start()

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                if not self.path.exists():  # another process took it for expired and may work here now
                    self._is_lost = True
                    return
                self.renew()
            except storage_errors() as error:
                logger.warning("%s could not be renewed (%s)", self.path, error)

    def check(self) -> None:
        if self._is_lost:
            raise FeatureStoreError(
                f"This run was suspended for more than {EXPIRES_S:.0f} s, or could not reach {self.path.parent}, and "
                "another one may have begun. Run again: everything finished is kept."
            )

    def end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(*storage_errors()):
            self.path.unlink(missing_ok=True)
