"""Download one weight file through pooch: resumable, checked before it gets its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet_pipeline.backends.checksums import FileCheck, read_stamp, verify_file, write_stamp
from vmnet_pipeline.errors import WeightsError
from vmnet_pipeline.storage.atomic import lock_folder

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_BYTES = 1 << 18


def download_file(url: str, target: Path, check: FileCheck, timeout_s: tuple[float, float]) -> None:
    """Fetch a file; what an earlier, broken attempt left is continued where the server allows it.

    Several processes may want the same file: one fetches it, and the others wait for that.

    Args:
        url: Address.
        target: Where the file shall be; it appears there only when complete and checked.
        check: What it must satisfy.
        timeout_s: Seconds to wait for a connection, and between two pieces of data.

    Raises:
        OSError: The server cannot be reached or refuses (all errors of requests are OSErrors).
        WeightsError: The file that came is not the published one; it is thrown away.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    known_hash = f"sha256:{check.sha256}" if check.sha256 else f"md5:{check.md5}" if check.md5 else None
    partial = target.with_name(target.name + ".part")

    def fetch(url: str, output_file: str, _pooch: Any) -> None:
        fetch_rest(url, partial, timeout_s)
        try:
            verify_file(partial, check, label=url)  # also by size and by prefix, which pooch does not know
        except WeightsError:
            partial.unlink()
            raise
        partial.replace(output_file)

    target.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(target.parent):
        if target.is_file():
            return
        try:
            pooch.retrieve(url, known_hash, fname=target.name, path=target.parent, downloader=fetch)
        except ValueError as error:  # pooch's own check
            raise WeightsError(f"{url}: {error}") from error
        target.chmod(0o644)
        write_stamp(target, read_stamp(target))


def fetch_rest(url: str, partial: Path, timeout_s: tuple[float, float]) -> None:
    """Fetch what is missing of a file that may have been begun.

    Raises:
        OSError: The server cannot be reached, refuses, or ends too early; what came is kept.
    """
    import requests
    from tqdm import tqdm

    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"} if done else {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to fetch; the checksum tells whether what is here is right
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        total = int(response.headers.get("Content-Length", 0)) + (done if resumed else 0)
        received = done if resumed else 0
        bytes_shown = tqdm(
            desc=partial.stem, total=total or None, initial=received, unit="B", unit_scale=True, delay=1, disable=None
        )
        with bytes_shown as progress, partial.open("ab" if resumed else "wb") as sink:
            for chunk in response.iter_content(CHUNK_BYTES):
                sink.write(chunk)
                progress.update(len(chunk))
                received += len(chunk)
    if total and received != total:
        raise OSError(f"{url}: connection ended after {received} of {total} bytes")
