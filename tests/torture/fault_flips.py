"""One flipped byte in any file: its reader says which file or item is damaged, or gives what it gave before."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_lab import draw
from row import Row

NAMED, SAME = "named", "read as before"
SHORT_FLIPS, LONG_FLIPS = 1, 25
"""Flips per file."""

Read = Callable[[], Any]


def flip_bytes(project: Path, folder: Path, *, long: bool) -> list[Row]:
    """Flip bytes in a copy of everything that has a checksum, one after the other."""
    shutil.copytree(project / "data", folder)
    n_flips = LONG_FLIPS if long else SHORT_FLIPS
    rows = []
    for what, files, read in list_readers(folder):
        ended: Counter[str] = Counter()
        failures: list[str] = []
        expected = read()
        for path in files:
            for seed in range(n_flips):
                end, failure = judge_flip(path, seed, read, expected)
                ended[end] += not failure
                failures += [f"{path.relative_to(folder)}, seed {seed}: {failure}"] if failure else []
        rows.append(Row(f"flipped byte: {what}", len(files) * n_flips, dict(+ended), failures))
    return rows


def judge_flip(path: Path, seed: int, read: Read, expected: Any) -> tuple[str, str]:
    """How reading ends after a flip, and what is wrong with that; the file is as before afterwards."""
    from vmnet_pipeline.errors import VmnetError

    whole, rng = path.read_bytes(), draw(seed, path.name)
    damaged = bytearray(whole)
    damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
    path.write_bytes(damaged)
    try:
        found = read()
    except VmnetError as error:
        is_named = any(name in str(error) for name in (path.name, path.stem, path.parent.name))
        return NAMED, "" if is_named else f"an error that does not name it: {error}"
    except Exception as error:
        return "", f"{type(error).__name__}: {error}"
    finally:
        path.write_bytes(whole)
    if found == expected:
        return SAME, ""
    is_named = isinstance(found, Named) and path.stem in found.names
    return (NAMED, "") if is_named or isinstance(found, Anew) else ("", "it is read as something else")


class Named:
    """What a check lists as wrong."""

    def __init__(self, names: set[str]) -> None:
        self.names = names


class Anew:
    """Nothing is taken from it, with a line in the log: what it held is made anew."""


def list_readers(data: Path) -> list[tuple[str, list[Path], Read]]:
    """Kind of file, files of it, and what reads them as the product does."""
    features = sorted(path.parent for path in (data / "04_feature").rglob("_index"))
    pairs = next((data / "05_model_input").rglob("pairs_*"))
    model = next((data / "06_models").rglob("checkpoint")).parent
    output = next((data / "07_model_output").rglob("music_index")).parent
    manifest = next((data / "02_intermediate").rglob("manifest.parquet"))
    cases: list[tuple[str, list[Path], Read]] = [("manifest", [manifest], lambda: read_manifest(manifest))]
    for store in features:
        lines = rewrite_as_lines(store, store.with_name(f"{store.name}_lines"))
        cases += [
            (f"features of {store.name}", sorted(store.glob("*.npy")), lambda store=store: read_features(store)),
            (f"index of {store.name}", [store / "_index/rows.parquet"], lambda store=store: read_rows(store)),
            (f"index of {store.name}, lines", sorted((lines / "_index").glob("*.jsonl")), lambda s=lines: read_rows(s)),
            (f"fingerprint of {store.name}", [store / "_index/fingerprint.json"], read_fingerprint(store)),
        ]
    for side in ("music", "video"):
        embeddings, index = output / f"{side}_embeddings", output / f"{side}_index"
        cases.append((f"{side} embeddings", list_files(embeddings), lambda e=embeddings: read_embedded(e)))
        current = index / (index / "current").read_text().split()[0]
        files = [index / "current", *list_files(current)]
        cases.append((f"{side} search index", files, lambda index=index: read_index(index)))
    weights = [model / "checkpoint" / name for name in ("model.safetensors", "config.json")]
    state = model / "training_state"
    return [
        *cases,
        ("packed pairs", list_files(pairs), lambda: read_packed(pairs)),
        ("checkpoint", weights, lambda: read_weights(model / "checkpoint")),
        ("training state", list_files(state), read_training(state)),
    ]


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def rewrite_as_lines(source: Path, target: Path) -> Path:
    """The same store as a run leaves it that has not come to its end: its index in lines."""
    from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureStore

    store = FeatureStore(source)
    results = tuple(FeatureResult(row, store.load(row.id)) for row in store.rows.values())
    fingerprint = store.fingerprint()
    assert fingerprint is not None
    FeatureStore(target).write(FeatureChunk(fingerprint, results))
    return target


# --- readers


def digest(*contents: Any) -> str:
    """Of arrays, or of anything by its repr."""
    parts = [content.tobytes() if hasattr(content, "tobytes") else repr(content).encode() for content in contents]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def read_manifest(path: Path) -> str:
    from vmnet_pipeline.datasets import MediaManifestDataset
    from vmnet_pipeline.hooks.error_messages import find_own_error

    try:
        return digest(MediaManifestDataset(filepath=str(path)).load().to_dict("records"))
    except Exception as error:
        raise (find_own_error(error) or error) from None


def read_features(folder: Path) -> Any:
    """What `kedro features verify` finds; loading the item has to refuse it as well."""
    from vmnet_pipeline.errors import FeatureStoreError
    from vmnet_pipeline.features.maintenance import verify_store
    from vmnet_pipeline.features.store import FeatureStore

    store = FeatureStore(folder)
    names = {*verify_store(store).damaged}
    refused = set()
    for item_id in store.done_ids():
        try:
            store.load(item_id)
        except FeatureStoreError:
            refused.add(item_id)
    return Named(names) if names and names == refused else (names, refused)


def read_rows(folder: Path) -> Any:
    """The index; of one that lacks rows, `kedro features verify` names the files that no row tells of."""
    from vmnet_pipeline.features.maintenance import verify_store
    from vmnet_pipeline.features.store import FeatureStore

    found = verify_store(FeatureStore(folder))
    if found.missing or found.damaged or found.unknown:
        return Named({path.stem for path in (folder / "_index").iterdir()})
    return digest(sorted(map(repr, FeatureStore(folder).rows.values())))


def read_fingerprint(folder: Path) -> Read:
    from vmnet_pipeline.features.store import FeatureStore

    wanted = FeatureStore(folder).fingerprint()
    assert wanted is not None
    return lambda: FeatureStore(folder).check_fingerprint(wanted)


def read_packed(folder: Path) -> str:
    from vmnet_pipeline.pairs.packing import read_pairs

    pairs = read_pairs(folder, verify=True)
    arrays = [getattr(array, "values", array) for array in (pairs.music, pairs.video)]
    return digest(*arrays, pairs.ids, pairs.groups, pairs.sizes, pairs.fingerprints, pairs.split_checksum)


def read_weights(folder: Path) -> str:
    from vmnet_pipeline.models.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(folder)
    tensors = [checkpoint.tensors[name].numpy() for name in sorted(checkpoint.tensors)]
    about = {name: value for name, value in vars(checkpoint).items() if name != "tensors"}
    return digest(*tensors, sorted(checkpoint.tensors), about)


def read_training(folder: Path) -> Read:
    from safetensors import safe_open

    from vmnet_pipeline.storage.checksummed import parse_json
    from vmnet_pipeline.training.state import STATE_FILE, StateFolder

    with safe_open(folder / STATE_FILE, framework="pt") as file:
        run_digest = parse_json(file.metadata()["state"])["run_digest"]

    def read() -> Any:
        state = StateFolder(folder, run_digest).load()
        if state is None:
            return Anew()
        return digest(*(state.tensors[name].numpy() for name in sorted(state.tensors)), state.history)

    return read


def read_embedded(folder: Path) -> str:
    from vmnet_pipeline.inference.embeddings import read_embeddings

    found = read_embeddings(folder)
    return digest(found.vectors, found.ids, found.sources, found.checkpoint)


def read_index(folder: Path) -> str:
    from vmnet_pipeline.search.index_files import load_index

    index = load_index(folder)
    vectors = index.faiss_index.reconstruct_n(0, index.faiss_index.ntotal)
    return digest(vectors, index.items.to_dict("records"), index.alive, index.params, index.about)
