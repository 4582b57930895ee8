"""Download one weight file through pooch: resumable, bounded, checked before it gets its name.

A server may be slow, broken or hostile. Never more than the published size is written (`MAX_BYTES` where none is),
never anything that has to be unpacked, and what an earlier attempt left is continued only while it can be the
beginning of the file.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.checksums import FileCheck, read_stamp, verify_file, write_stamp
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.storage.atomic import lock_folder
from vmnet_pipeline.storage.checksummed import parse_json
from vmnet_pipeline.storage.weak_disks import allow_reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

CHUNK_BYTES = 1 << 18
MAX_BYTES = 4 << 30
"""For files whose size is not published; the largest known one takes 550 MB."""

MAX_REDIRECTS = 5
ANSWER_WAIT_S = 120.0
"""Seconds until the head of the answer is complete, redirects included."""

SLOW_WINDOW_S = 60.0
SLOW_BYTES = 60_000
"""Fewer bytes than these in a window, and the server counts as hanging."""

_MAX_RECORD_BYTES = 10_000


class _UnfitError(Exception):
    """The partial file is not the beginning of the server's file."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Origin of a partial file, kept next to it as JSON.

    Attributes:
        url: Address.
        version: Strong ETag of the content; empty without one.
        total: Bytes of the whole file; 0 if unknown.
    """

    url: str
    version: str
    total: int


def download_file(url: str, target: Path, check: FileCheck, timeout_s: tuple[float, float]) -> None:
    """Fetch a file; continue an interrupted attempt if possible. `target` appears only when complete and checked.

    Several processes may want the same file: one fetches it, and the others wait. `timeout_s` are the seconds to wait
    for a connection, and between two pieces of data.

    Raises:
        OSError: The server cannot be reached, refuses, or sends unwanted content (errors of requests are OSErrors).
        WeightsError: The file is not the published one; it is deleted.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    known_hash = f"sha256:{check.sha256}" if check.sha256 else f"md5:{check.md5}" if check.md5 else None
    partial = target.with_name(target.name + ".part")

    def fetch(url: str, output_file: str, _pooch: Any) -> None:
        n_kept = fetch_rest(url, partial, check, timeout_s)
        try:
            verify_file(partial, check, label=url)  # also by size and by prefix, which pooch does not know
        except WeightsError:
            _forget(partial)
            if not n_kept:
                raise
            fetch(url, output_file, _pooch)  # what was there before may have been wrong
            return
        partial.replace(output_file)
        _forget(partial)

    target.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(target.parent):
        if target.is_file():
            return
        try:
            pooch.retrieve(url, known_hash, fname=target.name, path=target.parent, downloader=fetch)
        except ValueError as error:  # pooch's own check
            raise WeightsError(f"{url}: {error}") from error
        allow_reading(target)
        write_stamp(target, read_stamp(target))


def fetch_rest(url: str, partial: Path, check: FileCheck, timeout_s: tuple[float, float]) -> int:
    """Fetch the missing rest of a file; returns how many bytes of an earlier attempt were kept.

    Raises:
        OSError: The server cannot be reached, refuses, is too slow, ends too early (what came is kept then), or sends
            something that cannot be the file.
    """
    n_kept = _count_usable(url, partial, check)
    if n_kept and n_kept == check.size:
        return n_kept
    try:
        _request(url, partial, n_kept, check, timeout_s)
    except _UnfitError:
        _forget(partial)
        n_kept = 0
        _request(url, partial, 0, check, timeout_s)
    return n_kept


def _count_usable(url: str, partial: Path, check: FileCheck) -> int:
    """Count the bytes of a partial file that may be the beginning of the file; remove any other."""
    n_bytes = partial.stat().st_size if partial.exists() else 0
    origin = _read_origin(partial)
    is_checked_later = bool(check.sha256 or check.md5 or check.sha256_prefix)
    same = origin is not None and origin.url == url and bool(origin.version)
    if 0 < n_bytes <= (check.size or MAX_BYTES) and (same or is_checked_later):
        return n_bytes
    _forget(partial)
    return 0


def _request(url: str, partial: Path, n_kept: int, check: FileCheck, timeout_s: tuple[float, float]) -> None:
    origin = _read_origin(partial) if n_kept else None
    version = origin.version if origin and origin.url == url else ""
    headers = {"Accept-Encoding": "identity"}
    if n_kept:
        headers["Range"] = f"bytes={n_kept}-"
    if version:
        headers["If-Range"] = version
    with _open(url, headers, timeout_s) as response:
        start, total = _judge_answer(response, n_kept, version)
        if total is not None and total != (check.size or total):
            raise OSError(f"{url}: it offers {total} bytes, but {check.size} are published; it is another file")
        if (total or 0) > MAX_BYTES:
            raise OSError(f"{url}: it offers {total} bytes, more than the {MAX_BYTES} that a weight file may have")
        found = response.headers.get("ETag", "")
        own = _Origin(url, "" if found.startswith("W/") else found, total or 0)
        _name_origin(partial).write_text(json.dumps(asdict(own)), encoding="utf-8")
        _receive(response, partial, start, total, check.size or MAX_BYTES)


@contextmanager
def _open(url: str, headers: dict[str, str], timeout_s: tuple[float, float]) -> Iterator[requests.Response]:
    """Get the head of a response, in a thread, since a dripping one can only be abandoned.

    Raises:
        OSError: There is none in time, or it redirects from an encrypted address to an unencrypted one.
    """
    import requests

    answers: list[requests.Response | Exception] = []

    def ask() -> None:
        try:
            answers.append(session.get(url, headers=headers, stream=True, timeout=timeout_s))
        except Exception as error:
            answers.append(error)

    with requests.Session() as session:
        session.max_redirects = MAX_REDIRECTS
        asking = threading.Thread(target=ask, name="weights-request", daemon=True)
        asking.start()
        asking.join(ANSWER_WAIT_S)
        if not answers:
            raise OSError(f"{url}: no answer within {ANSWER_WAIT_S:.0f} s")
        if isinstance(answers[0], Exception):  # some of requests are a ValueError as well
            raise OSError(f"{url}: {answers[0]}") from answers[0]
        with answers[0] as response:
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise OSError(f"{url}: it leads to {response.url}, which is not encrypted")
            yield response


def _judge_answer(response: requests.Response, n_kept: int, version: str) -> tuple[int, int | None]:
    """Return where in the file the content begins, and the size of the whole file if known.

    Raises:
        OSError: The server refuses, or sends something other than the plain file.
        _UnfitError: The response does not continue at the requested position.
    """
    if response.status_code == 416 and n_kept:
        raise _UnfitError
    response.raise_for_status()
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise OSError(f"{response.url}: it sends the file packed ({encoding}), which was not asked for")
    if response.status_code == 200:
        return 0, _read_number(response.headers.get("Content-Length"))
    if response.status_code != 206 or not n_kept:
        raise OSError(f"{response.url}: it answers with {response.status_code}, not with a file")
    kind, _, rest = response.headers.get("Content-Range", "").partition(" ")
    part, _, total = rest.partition("/")
    is_same = not version or response.headers.get("ETag", version) == version
    if kind != "bytes" or _read_number(part.partition("-")[0]) != n_kept or not is_same:
        raise _UnfitError
    return n_kept, _read_number(total)


def _read_number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def _receive(response: requests.Response, partial: Path, start: int, total: int | None, most: int) -> None:
    """Write the content from byte `start`, and never more than `most` bytes in all."""
    from tqdm import tqdm

    received = start
    shown = tqdm(desc=partial.stem, total=total, initial=start, unit="B", unit_scale=True, delay=1, disable=None)
    with shown as progress, partial.open("r+b" if start else "wb") as sink:
        sink.seek(start)
        for chunk in _read_chunks(response):
            received += len(chunk)
            if received > most:
                break
            sink.write(chunk)
            progress.update(len(chunk))
    if received > most:
        _forget(partial)
        raise OSError(f"{response.url}: it sends more than the {most} bytes that the file may have")
    if received < (total or 0):
        raise OSError(f"{response.url}: connection ended after {received} of {total} bytes")


def _read_chunks(response: requests.Response) -> Iterator[bytes]:
    """What has come, as it comes; a server that drips, or sends without end what is no content, is left."""
    from urllib3.exceptions import HTTPError

    n_bytes = 0
    is_slow, ended = threading.Event(), threading.Event()

    def watch() -> None:  # a thread: headers of chunks, and trailers, are read within one call
        before = 0
        while not ended.wait(SLOW_WINDOW_S):
            if n_bytes - before < SLOW_BYTES:
                is_slow.set()
                with suppress(OSError):
                    response.raw.shutdown()
                return
            before = n_bytes

    threading.Thread(target=watch, name="weights-watch", daemon=True).start()
    try:
        while chunk := response.raw.read1(CHUNK_BYTES):
            yield chunk
            n_bytes += len(chunk)
    except (HTTPError, OSError) as error:  # that of urllib3 is no OSError
        if not is_slow.is_set():
            raise OSError(f"{response.url}: {error}") from error
    finally:
        ended.set()
    if is_slow.is_set():
        raise OSError(f"{response.url}: fewer than {SLOW_BYTES} bytes came in {SLOW_WINDOW_S:.0f} s")


def _name_origin(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_origin(partial: Path) -> _Origin | None:
    path = _name_origin(partial)
    with suppress(OSError, ValueError, TypeError):
        if path.stat().st_size <= _MAX_RECORD_BYTES:
            origin = _Origin(**parse_json(path.read_bytes()))
            return origin if isinstance(origin.url, str) and isinstance(origin.version, str) else None
    return None


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _name_origin(partial).unlink(missing_ok=True)
