"""What a project holds: digests that two runs are compared by, and a look at every file with its own reader.

Compared byte for byte: manifest, features, ids of the split, packed pairs, checkpoint, embeddings, the current version
of a search index, ranks, plots. Compared by content are files that tell of time or chance: the index of a feature
store (seconds, order of the rows, names of the files), summaries of extraction and training history (seconds). Only
to be there, and whole, have report.html, which tells what was measured of this very run, and `current` of a search
index, whose version has a drawn name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

TIMES = {"seconds", "prepare_seconds"}
NOT_COMPARED = ("/logs/", "/probe_cache/", "/training_state/", "/stages/", "/_index/lock", "/_index/writers")
"""What a run leaves for itself: event files, caches, locks; a training state is compared as the checkpoint it gives."""


def digest_outputs(project: Path) -> dict[str, str]:
    """File in `data` to digest of what counts of it."""
    data = project / "data"
    digests: dict[str, str] = {}
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        name = path.relative_to(data).as_posix()
        if any(part in f"/{name}" for part in NOT_COMPARED) or is_left_over(path) or is_old_version(path):
            continue
        content = path.read_bytes()
        if "/_index/" in name:
            name, content = describe_store_file(path)
        elif path.name in ("current", "report.html"):
            content = b""
        elif path.parent.name.startswith("version-"):
            name = f"{path.parents[1].relative_to(data).as_posix()}/version/{path.name}"
        elif path.suffix == ".json":
            content = json.dumps(drop_times(json.loads(content)), sort_keys=True).encode()
        digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def is_left_over(path: Path) -> bool:
    """Whether a killed writer left it, under a name that no reader looks at."""
    return any(part.startswith(".tmp") for part in path.parts)


def is_old_version(path: Path) -> bool:
    """Whether it is of a version of a search index that is not the current one."""
    folder = next((folder for folder in path.parents if folder.name.startswith("version-")), None)
    if folder is None:
        return False
    pointer = folder.with_name("current")
    return not pointer.exists() or pointer.read_text().split()[0] != folder.name


def describe_store_file(path: Path) -> tuple[str, bytes]:
    """The index of a feature store as its rows by id; other files of it as they are."""
    from vmnet_pipeline.features.store import FeatureStore

    store, name = path.parents[1], path.relative_to(path.parents[3]).as_posix()
    if not path.name.startswith("rows"):
        return name, path.read_bytes()
    rows = sorted(map(repr, (drop_times(vars_of(row)) for row in FeatureStore(store).rows.values())))
    return f"{store.name}/rows", "\n".join(rows).encode()


def vars_of(row: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row)


def drop_times(content: Any) -> Any:
    """The same without durations."""
    if isinstance(content, dict):
        return {name: drop_times(value) for name, value in content.items() if name not in TIMES}
    return [drop_times(value) for value in content] if isinstance(content, list) else content


def compare_outputs(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """One sentence per file that differs."""
    names = sorted(expected.keys() | found.keys())
    return [describe_difference(name, expected, found) for name in names if expected.get(name) != found.get(name)]


def describe_difference(name: str, expected: dict[str, str], found: dict[str, str]) -> str:
    if name not in found:
        return f"{name} is missing"
    return f"{name} differs" if name in expected else f"{name} is one too many"


# --- whole or absent


def find_half_files(project: Path) -> list[str]:
    """Read all that is there as the product does; one sentence for each thing that is neither whole nor refused."""
    data, found = project / "data", []
    for path in sorted(path for path in data.rglob("*") if path.is_file() and not is_left_over(path)):
        if any(part in f"/{path.relative_to(data).as_posix()}" for part in ("/logs/", "/_index/", "/version-")):
            continue
        try:
            read_file(path)
        except Exception as error:
            found.append(f"{path.relative_to(data)} is a half file: {type(error).__name__}: {error}")
    for folder in sorted(path.parent for path in data.rglob("_index")):
        found += find_broken_features(folder)
    for folder in sorted(path for path in data.rglob("*") if path.is_dir() and not is_left_over(path)):
        try:
            read_folder(folder)
        except Exception as error:
            found.append(f"{folder.relative_to(data)} is half: {type(error).__name__}: {error}")
    return found


def read_file(path: Path) -> None:
    """Raise if a file is not whole, as far as its format tells."""
    import pyarrow.parquet
    from safetensors.torch import load_file

    content = path.read_bytes()
    ends = {".csv": b"\n", ".html": b"</html>", ".png": b"IEND\xaeB`\x82", ".npy": b""}
    if path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".parquet":
        pyarrow.parquet.read_table(path)
    elif path.suffix == ".safetensors":
        load_file(path)
    elif (
        path.suffix in ends
        and not content.rstrip(b" ").endswith(ends[path.suffix])
        and not content.strip().endswith(ends[path.suffix])
    ):
        raise ValueError("it has no end")


def find_broken_features(folder: Path) -> list[str]:
    from vmnet_pipeline.features.maintenance import verify_store
    from vmnet_pipeline.features.store import FeatureStore

    store = FeatureStore(folder)
    if store.fingerprint() is None:
        return []
    found = verify_store(store)
    broken = [*found.missing, *found.damaged]
    return [f"{folder.name}: the features of {broken} are not what their rows say"] if broken else []


def read_folder(folder: Path) -> None:
    """Raise if a folder that is read as a whole is not; a refusal that says so is right."""
    from vmnet_pipeline.errors import CheckpointError
    from vmnet_pipeline.inference.embeddings import read_embeddings
    from vmnet_pipeline.models.checkpoints import load_checkpoint
    from vmnet_pipeline.pairs.packing import read_pairs
    from vmnet_pipeline.search.index_files import POINTER, load_index

    if folder.name.startswith("pairs_"):
        read_pairs(folder)
    elif folder.name.endswith("_embeddings"):
        read_embeddings(folder)
    elif folder.name.endswith("_index") and folder.name != "_index" and (folder / POINTER).is_file():
        load_index(folder)
    elif folder.name == "checkpoint" and (folder / "config.json").exists():
        try:
            load_checkpoint(folder)
        except CheckpointError as error:  # killed between its two files: it is refused, and made anew
            if "not the file that" not in str(error):
                raise
