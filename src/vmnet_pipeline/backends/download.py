"""Download one weight file: resumable, checked before it gets its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmnet_pipeline.backends.checksums import FileCheck, verify_file, write_stamp

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_BYTES = 1 << 18


def download_file(url: str, target: Path, check: FileCheck, timeout_s: tuple[float, float]) -> None:
    """Fetch a file; what an earlier, broken attempt left is continued where the server allows it.

    Args:
        url: Address.
        target: Where the file shall be; it appears there only when complete and checked.
        check: What it must satisfy.
        timeout_s: Seconds to wait for a connection, and between two pieces of data.

    Raises:
        OSError: The server cannot be reached or refuses (all errors of requests are OSErrors).
        WeightsError: The file that came is not the published one; it is thrown away.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    _fetch_rest(url, partial, timeout_s)
    try:
        digest = verify_file(partial, check, label=url)
    except Exception:
        partial.unlink()
        raise
    partial.replace(target)
    write_stamp(target, digest)


def _fetch_rest(url: str, partial: Path, timeout_s: tuple[float, float]) -> None:
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
        progress = tqdm(desc=partial.stem, total=total or None, initial=received, unit="B", unit_scale=True, delay=1)
        with progress, partial.open("ab" if resumed else "wb") as sink:
            for chunk in response.iter_content(CHUNK_BYTES):
                sink.write(chunk)
                progress.update(len(chunk))
                received += len(chunk)
    if total and received != total:
        raise OSError(f"{url}: connection ended after {received} of {total} bytes")
