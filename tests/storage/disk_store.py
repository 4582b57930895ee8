"""An object store in a folder, which processes share and whose requests can be counted and killed at."""

from __future__ import annotations

import os
import signal
import warnings

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vmnet_pipeline.storage import paths


class DiskStore(LocalFileSystem):
    """`disk:///FOLDER`. A process is killed before its request number `kill_at`, from 0."""

    protocol = "disk"
    n_requests, kill_at = 0, None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("disk://"))

    def _open(self, path, mode="rb", **options):
        self._count()
        return super()._open(path, mode, **options)

    def ls(self, path, detail=False, **options):
        self._count()
        return super().ls(path, detail, **options)

    def rm_file(self, path):
        self._count()
        super().rm_file(path)

    def _count(self):
        if DiskStore.n_requests == DiskStore.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        DiskStore.n_requests += 1


def make_store(folder, monkeypatch):
    """The path of a folder as one of an object store."""
    fsspec.register_implementation("disk", DiskStore, clobber=True)
    monkeypatch.setattr(paths, "PROTOCOLS", (*paths.PROTOCOLS, "disk"))
    with warnings.catch_warnings(action="ignore"):  # universal_pathlib does not know the protocol
        return paths.as_path(f"disk://{folder}", {"auto_mkdir": True})
