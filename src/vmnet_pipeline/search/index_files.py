"""Search indexes on disk.

    FOLDER/current              name of the version that counts, and the sha256 of its contents.json
    FOLDER/VERSION/vectors.faiss
    FOLDER/VERSION/items.parquet       one row per position: id, metadata, alive
    FOLDER/VERSION/contents.json       kind, parameters, and the sha256 of the two files

A version is written completely under a temporary name before the one small file `current` is replaced: two files cannot
be replaced in one atomic step, but one can. Whatever happens to a writer, readers find the old version or the new one.
The version before the current one is kept for readers that have just read `current`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.params import IndexKind, IndexParams
from vmnet_pipeline.search.judgement import read_calibration
from vmnet_pipeline.search.vector_index import VectorIndex, import_faiss
from vmnet_pipeline.storage.atomic import TEMPORARY_PREFIX, lock_folder, replace_folder, write_text_atomically
from vmnet_pipeline.storage.checksummed import describe_files, hash_file, read_document, read_frame

if TYPE_CHECKING:
    from pathlib import Path

POINTER = "current"
CONTENTS = "contents.json"
VECTORS = "vectors.faiss"
ITEMS = "items.parquet"
FORMAT_VERSION = 1
VERSION_PREFIX = "version-"
REMEDY = "rebuild it: kedro run --pipeline index"
REMEDY_MISSING = "make it: kedro run --pipelines=embed,index, with the media_dir or collection of the training"


class _Contents(BaseModel):
    """The fields of `contents.json` that are read back; the others are for people."""

    format_version: Literal[1]
    kind: IndexKind
    dim: int
    params: IndexParams
    about: dict[str, Any]
    files: dict[Literal["vectors.faiss", "items.parquet"], str]


def save_index(folder: Path, index: VectorIndex) -> None:
    """Write an index as the new current version; a kill at any moment leaves the old one current."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{VERSION_PREFIX}{uuid.uuid4().hex[:12]}"
    with lock_folder(folder):
        previous = ""
        with suppress(SearchIndexError):  # there is none, or `current` is damaged
            previous = _read_pointer(folder)[0]
        with replace_folder(folder / name) as temporary:
            import_faiss().write_index(index.faiss_index, str(temporary / VECTORS))
            index.items.assign(alive=index.alive).to_parquet(temporary / ITEMS, index=False)
            contents = json.dumps(_describe(index, temporary), indent=2, sort_keys=True) + "\n"
            (temporary / CONTENTS).write_text(contents, encoding="utf-8")
        digest = hashlib.sha256(contents.encode()).hexdigest()
        write_text_atomically(folder / POINTER, f"{name} {digest}\n", durable=True)
        for path in folder.iterdir():  # old versions, and what killed writers left
            is_old = path.name.startswith((VERSION_PREFIX, TEMPORARY_PREFIX)) and path.name not in (name, previous)
            if is_old and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def load_index(folder: Path) -> VectorIndex:
    """Read the current version of an index and verify its checksums.

    Raises:
        SearchIndexError: There is none, or a file is damaged; the message names the file.
    """
    while True:
        name, digest = _read_pointer(folder)
        try:
            return _load_version(folder / name, digest)
        except FileNotFoundError as error:
            # Writers may have replaced this version twice since the pointer was read; then the new one is read.
            if _read_pointer(folder)[0] == name:
                raise SearchIndexError(f"{error.filename or folder / name} is missing; {REMEDY}") from error


def _describe(index: VectorIndex, folder: Path) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "kind": index.kind,
        "dim": index.dim,
        "n_items": len(index),
        "n_removed": len(index.alive) - len(index),
        "params": index.params.model_dump(mode="json"),
        "about": index.about,
        "files": describe_files(folder, (VECTORS, ITEMS)),
    }


def _load_version(folder: Path, digest: str) -> VectorIndex:
    import numpy as np

    try:
        text = read_document(folder / CONTENTS)
    except ValueError as error:
        raise SearchIndexError(f"{folder / CONTENTS} is damaged ({error}); {REMEDY}") from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise SearchIndexError(f"{folder / CONTENTS} is damaged: its checksum is not that in {POINTER}; {REMEDY}")
    try:
        contents = _Contents.model_validate_json(text)
    except ValidationError as error:
        raise SearchIndexError(f"{folder / CONTENTS} is of another version of this package; {REMEDY}") from error
    for name, expected in contents.files.items():
        if hash_file(folder / name) != expected:
            raise SearchIndexError(f"{folder / name} is damaged: its checksum is not that in {CONTENTS}; {REMEDY}")
    try:
        items = read_frame(folder / ITEMS)
        alive = items.pop("alive").to_numpy(dtype=bool)
    except (ValueError, KeyError, TypeError) as error:
        raise SearchIndexError(f"{folder / ITEMS} is damaged ({error}); {REMEDY}") from error
    read_calibration(contents.about.get("calibration"))
    vectors = _read_vectors(folder / VECTORS)
    if len(items) != vectors.ntotal or vectors.d != contents.dim or "id" not in items:
        raise SearchIndexError(f"the files of {folder} do not belong together; {REMEDY}")
    return VectorIndex(vectors, contents.kind, items, np.array(alive), contents.params, contents.about)


def _read_vectors(path: Path) -> Any:
    try:
        faiss, n_bytes = import_faiss(), path.stat().st_size
        # A damaged or hostile header may claim any length: no array in a file is longer than the file.
        faiss.set_deserialization_vector_byte_limit(n_bytes)
        faiss.set_deserialization_loop_limit(n_bytes)
        return faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:  # faiss's own for whatever goes wrong with a file
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise SearchIndexError(f"{path} cannot be read ({error}); {REMEDY}") from error


def _read_pointer(folder: Path) -> tuple[str, str]:
    path = folder / POINTER
    try:
        name, digest = read_document(path).decode("ascii").split()
    except FileNotFoundError as error:
        raise SearchIndexError(f"there is no search index in {folder}; {REMEDY_MISSING}") from error
    except (OSError, ValueError) as error:
        raise SearchIndexError(f"{path} is damaged ({error}); {REMEDY}") from error
    if not name.startswith(VERSION_PREFIX) or "/" in name:
        raise SearchIndexError(f"{path} is damaged: {name!r} is not a version; {REMEDY}")
    return name, digest
