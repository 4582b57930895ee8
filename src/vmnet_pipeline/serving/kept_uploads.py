"""Uploads that stay for some minutes, so that a second question about a file does not send it again."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from vmnet_pipeline.serving.errors import RefusedError
from vmnet_pipeline.serving.upload_folder import UploadFolder, refuse_storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmnet_pipeline.serving.worker import Answer


@dataclass(slots=True)
class KeptUpload:
    """One file.

    Attributes:
        facts: What a client may know of it, see `schemas.Upload`.
        answers: What workers found, by side and digest of the network.
        n_users: Requests that use it now; it is not removed meanwhile.
    """

    path: Path
    size: int
    facts: dict[str, Any]
    ends: float
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    n_users: int = 0


class KeptUploads:
    """Files by a token that cannot be guessed; the one unused for longest gives way when there are too many bytes.

    Args:
        keep_s: Time after its last use after which a file is removed.
        max_bytes: Of all files together. The latest one stays even if it is larger.
    """

    def __init__(self, keep_s: float, max_bytes: int) -> None:
        self.keep_s, self._max_bytes = keep_s, max_bytes
        self.folder = UploadFolder()
        self._lock = threading.Lock()
        self._kept: dict[str, KeptUpload] = {}

    def add(self, path: Path, size: int, facts: dict[str, Any]) -> str:
        """Keep a file of `folder` beyond its request; its token.

        Raises:
            RefusedError: 503 or 507 when the disk refuses.
        """
        token = secrets.token_urlsafe(18)
        place = path.with_name(f"kept-{token}")
        try:
            path.rename(place)
        except OSError as error:
            raise refuse_storage(error) from error
        with self._lock:
            self._kept[token] = KeptUpload(place, size, facts, time.monotonic() + self.keep_s)
        self.remove_old()
        return token

    @contextmanager
    def use(self, token: str) -> Iterator[KeptUpload]:
        """Hold a file while a request uses it; 404 if it is not there any more."""
        with self._lock:
            upload = self._kept.get(token)
            if upload is None or upload.ends < time.monotonic() or not upload.path.is_file():
                raise RefusedError(404, "no_such_upload", "This upload is not here any more; send the file again.")
            upload.n_users += 1
            self._kept[token] = self._kept.pop(token)  # the latest one is the last
        try:
            yield upload
        finally:
            with self._lock:
                upload.n_users -= 1
                upload.ends = time.monotonic() + self.keep_s

    def open(self, token: str) -> BinaryIO:
        """Open a file for reading, unbuffered; 404 as `use`."""
        with self.use(token) as upload:
            try:
                return upload.path.open("rb", buffering=0)
            except OSError as error:
                raise refuse_storage(error) from error

    def remove_old(self) -> None:
        """Remove what is over its time, and the oldest while there are too many bytes."""
        with self._lock:
            now, n_bytes = time.monotonic(), sum(upload.size for upload in self._kept.values())
            newest = next(reversed(self._kept), "")
            for token, upload in list(self._kept.items()):
                is_too_much = n_bytes > self._max_bytes and token != newest
                if upload.n_users == 0 and (upload.ends < now or is_too_much):
                    del self._kept[token]
                    n_bytes -= upload.size
                    with suppress(OSError):
                        upload.path.unlink()

    def close(self) -> None:
        """Remove all files."""
        self.folder.remove()
