"""Covers of tracks, read once from their files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import MediaError, SandboxError
from vmnet_pipeline.media.covers import read_cover

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.media.sandbox import Sandbox

LIMIT_S = 20.0
MAX_COVERS = 1000  # of some 10 kB each


class Covers:
    """Small JPEGs by file, read one after the other in a child process, and kept in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._known: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def find(self, path: Path) -> bytes:
        """The cover of a file; empty if it has none, or cannot be read."""
        try:
            key = (str(path), path.stat().st_mtime_ns)
        except OSError:
            return b""
        with self._lock:
            if key not in self._known:
                self._known[key] = b""
                with suppress(MediaError, SandboxError):
                    self._known[key] = self._open_sandbox().call(read_cover, str(path))
                if len(self._known) > MAX_COVERS:
                    self._known.popitem(last=False)
            return self._known[key]

    def close(self) -> None:
        """End the child process."""
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()

    def _open_sandbox(self) -> Sandbox:
        from vmnet_pipeline.media.sandbox import Sandbox
        from vmnet_pipeline.params import LimitParams

        if self._sandbox is None:
            self._sandbox = Sandbox(LimitParams.model_validate({"seconds": LIMIT_S}))
        return self._sandbox
