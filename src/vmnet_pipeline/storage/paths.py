"""Use local paths and URLs of object stores (`s3://bucket/folder`) alike.

`as_path` returns a `Path` for a local path, and for a URL an object of universal_pathlib with the same methods. The
differences of object stores are handled here: a file appears whole (no temporary file), listing is cheap and single
requests are not, nothing can be memory-mapped, and errors and credentials differ.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.prefetch import run_ahead

PROTOCOLS = ("s3", "gs", "az", "abfs", "memory")
"""Other protocols are rejected so that an untrusted media.csv cannot make this host contact arbitrary addresses."""

DEFAULT_CACHE_DIR = "data/cache"
N_AHEAD = 16  # number of concurrent requests
_STAMPS = ("LastModified", "updated", "last_modified", "modified", "created")  # as the stores call it
_configured: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in a listing of an object store."""

    size_bytes: int
    modified_s: float  # time of the last change by the clock of the store, in seconds since 1970
    version: str  # differs for every content (ETag), or else for every change


def is_remote(place: object) -> bool:
    """Whether a path or text is a URL and not a local path."""
    return "://" in str(place)


def as_path(place: str | Path, credentials: Mapping[str, Any] | None = None) -> Path:
    """The path object for a local path or URL.

    Args:
        credentials: Options of the object store for this place alone, e.g. `key` and `secret`; see `configure_storage`
            for those of all places.

    Raises:
        StorageError: A URL that is not of `PROTOCOLS`, contains a password, or needs a missing package.
    """
    if isinstance(place, Path):
        return place
    text = str(place)
    if not is_remote(text):
        return Path(text)
    if not isinstance(place, str):
        return place
    protocol, _, rest = text.partition("://")
    if "@" in rest.partition("/")[0]:
        raise StorageError(
            f"A {protocol}:// URL contains a name or password. Put credentials into conf/local/credentials.yml."
        )
    if protocol not in PROTOCOLS or "::" in text:
        raise StorageError(f"{text} cannot be used: give a local path, or a URL of {', '.join(PROTOCOLS)}.")
    try:
        from upath import UPath

        # Other processes write to the same folders, so no listing is kept.
        path = UPath(text.rstrip("/"), **{"use_listings_cache": False, **(credentials or {})})
        _ = path.fs
    except ImportError as error:
        raise StorageError(
            f"{text} needs packages that are not installed ({error}): pip install 'vmnet-pipeline[s3]', or the fsspec "
            f"package of {protocol}://"
        ) from error
    return cast("Path", path)


def configure_storage(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Set options, such as credentials, of all places of this process.

    Args:
        options: Protocol, e.g. `s3`, to arguments of its fsspec file system, e.g. `key`, `secret`, `endpoint_url`.

    Raises:
        StorageError: They do not have this form.
    """
    import fsspec.config

    for protocol, own in options.items():
        if not isinstance(own, Mapping) or protocol not in PROTOCOLS:
            raise StorageError(
                f"`storage` in credentials.yml must name object stores ({', '.join(PROTOCOLS)}) with their options "
                f"below, but has {protocol!r}."
            )
        _configured[protocol] = dict(own)
        fsspec.config.conf[protocol] = dict(own)


def get_configuration() -> dict[str, dict[str, Any]]:
    """The options given to `configure_storage`, for other processes of this run; they contain secrets."""
    return {protocol: dict(own) for protocol, own in _configured.items()}


def storage_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Exceptions that reading and writing may raise, and `others`; those of object stores are not all OSErrors."""
    if "botocore" not in sys.modules:
        return (OSError, *others)
    from botocore.exceptions import BotoCoreError

    return (OSError, BotoCoreError, *others)


@contextmanager
def explain_access(place: str | Path) -> Iterator[None]:
    """Turn an error of an object store into one with its remedy.

    Raises:
        FileNotFoundError: The store has no such file.
        StorageError: It cannot be reached, or rejects the credentials.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except storage_errors() as error:
        if not is_remote(place):
            raise
        raise StorageError(
            f"{place} cannot be used ({type(error).__name__}: {error}). Check the name, the network, and the "
            "credentials (conf/local/credentials.yml, or the variables and files that the store's own tools read)."
        ) from error


# --- listing


def list_files(folder: Path, *, recursive: bool = False) -> dict[str, StoredFile]:
    """Files in a remote folder by their path in it, one request per thousand. Empty for a missing folder.

    An object whose name leads out of the folder (`..`) is skipped: its copy could be written anywhere on this machine.
    """
    file_system, prefix = _split(folder)
    try:
        if recursive:
            found = file_system.find(prefix, detail=True).values()
        else:
            found = [entry for entry in file_system.ls(prefix, detail=True) if entry["type"] == "file"]
    except FileNotFoundError:
        return {}
    prefix = prefix.strip("/") + "/"
    names = ((entry["name"].strip("/").removeprefix(prefix), entry) for entry in found)
    return {
        name: _describe(entry)
        for name, entry in names
        if name and ".." not in name.split("/") and not entry["name"].endswith("/")
    }


def _describe(entry: Mapping[str, Any]) -> StoredFile:
    stamp: Any = next(entry[name] for name in _STAMPS if name in entry)
    stamp = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    modified_s = stamp.timestamp() if isinstance(stamp, datetime) else float(stamp)
    version = entry.get("ETag") or entry.get("etag") or modified_s
    return StoredFile(int(entry["size"] or 0), modified_s, str(version))


def find_files(urls: Sequence[str]) -> dict[str, StoredFile]:
    """Those of the given remote files that exist; their folders are listed, not each file requested.

    A URL that is refused is not listed; opening it gives the reason.
    """
    folders = sorted({url.rpartition("/")[0] for url in urls})
    listings = run_ahead(_list_acceptable, folders, N_AHEAD)
    known = {
        f"{folder}/{name}": found
        for folder, listing in zip(folders, listings, strict=True)
        for name, found in listing().items()
    }
    return {url: known[url] for url in urls if url in known}


def _list_acceptable(folder: str) -> dict[str, StoredFile]:
    try:
        return list_files(as_path(folder))
    except StorageError:
        return {}


def number_version(found: StoredFile) -> int:
    """The version of a file as a number, for columns that hold the modification time of local files."""
    return int(hashlib.sha256(found.version.encode()).hexdigest()[:15], 16)


# --- content


def read_files(paths: Sequence[Path]) -> list[bytes]:
    """Read small remote files concurrently; FileNotFoundError if one has been removed."""
    return [read() for read in run_ahead(lambda path: path.read_bytes(), paths, N_AHEAD)]


def upload(local: Path, target: Path) -> None:
    """Upload a local file to an object store; readers see the old object or the new one."""
    file_system, name = _split(target)
    file_system.put_file(str(local), name)


def copy_to_local(source: Path, local: Path) -> None:
    """Copy a file, local or remote, to a local path."""
    if not is_remote(source):
        shutil.copyfile(source, local)
        return
    file_system, name = _split(source)
    local.parent.mkdir(parents=True, exist_ok=True)
    file_system.get_file(name, str(local))


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a local file or folder with the content of `path`: itself when it is local, else a temporary copy."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vmnet-") as folder:
        local = Path(folder) / path.name
        if path.is_dir():
            for name in list_files(path, recursive=True):
                copy_to_local(path / name, local / name)
        elif path.exists():
            copy_to_local(path, local)
        yield local


def name_local(place: str | Path, cache_dir: str | Path = DEFAULT_CACHE_DIR) -> str:
    """A local path for files that cannot be kept at a URL; a local path is returned as it is."""
    if not is_remote(place):
        return str(place)
    protocol, _, rest = str(place).partition("://")
    return f"{cache_dir}/{protocol}/{rest}"


def _split(path: Path) -> tuple[Any, str]:
    """File system of a remote path, and the path within it."""
    remote = cast("Any", path)
    return remote.fs, str(remote.path)
