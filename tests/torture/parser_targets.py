"""Every place where a user can put a file, and every body of a request: valid ones, and what reads them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]
from fuzzing import Target  # noqa: E402 - beside this file

MODULES = (
    "tiny_pairs", "table_file", "pandas", "pyarrow.parquet", "pyarrow.json", "torch", "safetensors.torch", "faiss",
        "yaml",
    "pandera.pandas", "hypothesis", "fastapi", "python_multipart.multipart", "vmnet_pipeline.datasets.media_manifest",
    "vmnet_pipeline.features.store", "vmnet_pipeline.reference.layout", "vmnet_pipeline.reference.planning",
    "vmnet_pipeline.reference.checkpoint",
    "vmnet_pipeline.inference.embedder", "vmnet_pipeline.search.index_files", "vmnet_pipeline.serving.app",
    "vmnet_pipeline.serving.uploads", "vmnet_pipeline.training.state", "vmnet_pipeline.backends.torch_weights",
    "vmnet_pipeline.backends.weights",
)  # fmt: skip
IDS = ("a1", "b2", "c3", "d4", "e5", "f6")
DIM = 8


def import_all() -> None:
    """Import everything that the targets use, so that a forked child need not, and no thread runs before the fork."""
    for name in MODULES:
        import_module(name)


# --- tables of text


def make_media_csv(folder: Path) -> None:
    (folder / "media.csv").write_text(
        'id,video,audio,group,title\n007,v/a.mp4,a/a.mp3,g1,Dawn\nb,v/b.mp4,,g2,"Dusk, or so"\nc,c.mkv,,,x\n',
        encoding="utf-8",
    )


def read_media_csv(folder: Path) -> Any:
    from vmnet_pipeline.ingestion.discovery import find_items
    from vmnet_pipeline.search.item_metadata import read_extra_columns

    return find_items(folder), read_extra_columns(folder)


def draw_csv() -> Any:
    from hypothesis import strategies as st

    cell = st.one_of(
        st.text(max_size=12), st.sampled_from(["id", "video", "audio", "group", "../x", '"', "a\0", "007", "NaN"])
    )
    rows = st.lists(st.lists(cell, max_size=6), max_size=6)
    head = st.sampled_from(["id,video,audio,group", "id\tvideo", "id", "ID,id,video", "\ufeffid,video", ""])
    text = st.builds(
        lambda h, r, d: "\n".join([h, *(d.join(row) for row in r)]), head, rows, st.sampled_from([",", "\t", ";"])
    )
    encode = st.sampled_from(["utf-8", "utf-16", "latin-1", "utf-7"])
    return st.builds(lambda t, e: t.encode(e, "replace"), text, encode)


def make_ids(folder: Path) -> None:
    (folder / "train.csv").write_text("id\n" + "\n".join(IDS) + "\n", encoding="utf-8")


def read_id_file(folder: Path) -> Any:
    from vmnet_pipeline.ingestion.tables import read_ids

    return read_ids(folder / "train.csv")


def make_weight_table(folder: Path) -> None:
    (folder / "conf/local").mkdir(parents=True)
    (folder / "conf/local/weights.yml").write_text(
        "mine:\n  licence: MIT\n  citation: nobody\n  homepage: https://example.org\n"
        "  package: {name: a, version: '1', sha256: ab}\n  files:\n    - path: mine/a.pth\n"
        "      sources: [{local: ~/a.pth}, {url: 'https://example.org/a'}]\n      size: 12\n"
        f"      sha256: {'0' * 64}\n",
        encoding="utf-8",
    )


def read_weight_file(folder: Path) -> Any:
    from vmnet_pipeline.backends.weights import list_weights

    with contextlib.chdir(folder):
        return list_weights(folder)


# --- arrays


def make_pairs_dir(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for side, ids in (("train", IDS[:4]), ("test", IDS[4:])):
        (folder / f"{side}.csv").write_text("id,group\n" + "".join(f"{i},g{i}\n" for i in ids), encoding="utf-8")
        for modality, width in (("audio", 6), ("video", 5)):
            (folder / side / modality).mkdir(parents=True)
            for item_id in ids:
                np.save(folder / side / modality / f"{item_id}.npy", rng.normal(size=(3, width)).astype(np.float32))


def read_pairs_dir(folder: Path) -> Any:
    from vmnet_pipeline.pairs.packing import read_pairs, write_pairs
    from vmnet_pipeline.reference.layout import locate_subsets, make_layout
    from vmnet_pipeline.reference.planning import peek_shapes, plan_reference_pairs

    layout = make_layout(locate_subsets(folder))
    peek_shapes(layout)
    plan = plan_reference_pairs(layout, val_share=0.2, seed=0)
    write_pairs(folder / "packed", plan)
    return [np.asarray(array).sum() for array in _arrays_of(read_pairs(folder / "packed"))]


def _arrays_of(pairs: Any) -> tuple[Any, Any]:
    return pairs.music, pairs.video


def draw_npy() -> Any:
    """A header of numpy's own form with whatever in it, and some values."""
    from hypothesis import strategies as st

    shape = st.one_of(
        st.tuples(st.integers(-3, 2**70)),
        st.tuples(st.integers(0, 9), st.integers(-1, 2**33)),
        st.just(()),
        st.text(max_size=5),
    )
    descr = st.sampled_from(
        [
            "<f4",
            "<f8",
            "|O",
            "<U9",
            "V0",
            "<f2",
            ">f4",
            "<c16",
            "S0",
            [("a", "<f4")],
            "?",
            "M8[s]",
            "<f4,<f4",
            "<i8",
            "",
        ]
    )
    head = st.builds(
        lambda d, f, s: repr({"descr": d, "fortran_order": f, "shape": s}),
        descr,
        st.sampled_from([True, False, 0, None]),
        shape,
    )
    head = st.one_of(
        head,
        st.text(max_size=60),
        st.sampled_from(["(" * 9000, "{'descr': __import__('os')}", "{" * 300, "1L", "-" * 5000 + "1"]),
    )

    def build(header: str, version: tuple[int, int], values: bytes) -> bytes:
        text = header.encode("latin-1", "replace") + b"\n"
        size = len(text).to_bytes(2 if version == (1, 0) else 4, "little") if len(text) < 65_536 else b"\xff\xff"
        return b"\x93NUMPY" + bytes(version) + size + text + values

    versions = st.sampled_from([(1, 0), (1, 0), (2, 0), (3, 0), (9, 9)])
    return st.builds(build, head, versions, st.binary(max_size=64))


def make_store(folder: Path) -> None:
    from vmnet_pipeline.features.index import FeatureRow
    from vmnet_pipeline.features.store import FeatureChunk, FeatureResult, FeatureStore
    from vmnet_pipeline.types import Fingerprint

    store, rng = FeatureStore(folder, writer="w"), np.random.default_rng(0)
    results = [FeatureResult(FeatureRow(i, "done", "c" + i), rng.normal(size=(2, 3)).astype(np.float32)) for i in IDS]
    store.write(FeatureChunk(Fingerprint("toy", {"a": 1}), tuple(results[:4])))
    store.compact()
    store = FeatureStore(folder, writer="v")
    store.write(
        FeatureChunk(
            Fingerprint("toy", {"a": 1}),
            (*results[4:], FeatureResult(FeatureRow("x", "failed", "cx", reason="r"), None)),
        )
    )
    store.mark_complete()


def read_store(folder: Path) -> Any:
    from vmnet_pipeline.errors import FeatureStoreError
    from vmnet_pipeline.features.store import FeatureStore

    store = FeatureStore(folder)
    store.fingerprint()
    for item_id in store.done_ids():
        row = store.rows[item_id]
        store.is_whole(item_id, row.checksum)
        with contextlib.suppress(FeatureStoreError):  # one item; the next ones are looked at all the same
            store.load(item_id).sum()
    return store.rows.to_frame("status", "shape"), store.is_complete()


def make_packed(folder: Path) -> None:
    (folder / "source").mkdir()
    make_pairs_dir(folder / "source")
    from vmnet_pipeline.pairs.packing import write_pairs
    from vmnet_pipeline.reference.layout import locate_subsets, make_layout
    from vmnet_pipeline.reference.planning import plan_reference_pairs

    layout = make_layout(locate_subsets(folder / "source"))
    write_pairs(folder / "pooled", plan_reference_pairs(layout, val_share=0.2, seed=0))
    write_pairs(folder / "steps", plan_reference_pairs(layout, val_share=0.2, seed=0, music_steps=2, video_steps=4))


def seal_packed(folder: Path) -> None:
    for path in folder.glob("*/pairs.json"):
        _renew_checksum(path)


def read_packed(folder: Path) -> Any:
    from vmnet_pipeline.pairs.packing import read_pairs

    pairs, steps = read_pairs(folder / "pooled"), read_pairs(folder / "steps")
    train = steps.subset("train")
    return np.asarray(pairs.music).sum(), np.asarray(pairs.subset("test").video).sum(), train.music[:1], len(steps)


# --- tables


def make_manifest(folder: Path) -> None:
    from vmnet_pipeline.ingestion.discovery import SourceItem
    from vmnet_pipeline.ingestion.manifest import build_manifest

    items = [SourceItem(i, f"/m/{i}.mp4", f"/m/{i}.mp3", "", "no_file", "it is not there") for i in IDS]
    build_manifest(items, lambda path: None).assign(status="ok", reason="").to_parquet(
        folder / "manifest.parquet", index=False
    )


def read_manifest(folder: Path) -> Any:
    from kedro.io import DatasetError

    from vmnet_pipeline.datasets.media_manifest import MediaManifestDataset

    try:
        return MediaManifestDataset(filepath=str(folder / "manifest.parquet")).load()
    except DatasetError as error:  # the catalog's own coat around ours
        raise error.__cause__ or error from None


# --- networks


def make_checkpoint(folder: Path) -> None:
    import torch

    from tiny_pairs import NARROW
    from vmnet_pipeline.models.checkpoints import Checkpoint, save_checkpoint
    from vmnet_pipeline.models.factory import build_model
    from vmnet_pipeline.types import Fingerprint

    config = {
        **NARROW,
        "music_shape": [12],
        "video_shape": [14],
        "embedding_dim": DIM,
        "dropout": 0.1,
        "standardise": True,
    }
    torch.manual_seed(0)
    tensors = {name: tensor.clone() for name, tensor in build_model(**config).state_dict().items()}
    prints = {"audio": Fingerprint("toy", {"hop_s": 0.5}), "video": Fingerprint("toy", {})}
    save_checkpoint(folder, Checkpoint(config, tensors, prints, params={"epochs": 3}, metrics={"mrr": 0.5}))


def seal_checkpoint(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    _renew_checksum(folder / "config.json", weights_sha256=digest)


def _renew_checksum(path: Path, **changes: Any) -> None:
    from vmnet_pipeline.storage.checksummed import CHECKSUM, add_checksum

    with contextlib.suppress(ValueError, TypeError, RecursionError):
        content = {**json.loads(path.read_bytes())}
        content.pop(CHECKSUM, None)
        path.write_text(
            add_checksum({**content, **{name: value for name, value in changes.items() if name in content}})
        )


def read_network(folder: Path) -> Any:
    from vmnet_pipeline import Embedder

    embedder = Embedder.load(folder)
    return embedder([np.ones((1, 12)), None], pooled=True), embedder.digest


def make_tf_checkpoint(folder: Path) -> None:
    from table_file import write_table

    from vmnet_pipeline.reference.variables import Towers, parts_of

    rng = np.random.default_rng(0)
    ranks = {"W": (3, 2), "kernel": (5, 1, 1, 1)}
    variables = {
        f"{layer}/{part}": rng.normal(size=ranks.get(part, (2,)))
        for layer in Towers("vggish", 3, 2, linear=False).layers() for part in parts_of(layer)
    }  # fmt: skip
    write_table(folder / "model.ckpt-7", variables)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n', encoding="utf-8")


def read_tf_checkpoint(folder: Path) -> Any:
    from vmnet_pipeline.backends.tensorflow_checkpoint import read_checkpoint
    from vmnet_pipeline.errors import CheckpointError
    from vmnet_pipeline.reference.checkpoint import DATA_SUFFIX, find_prefix, import_checkpoint

    with contextlib.suppress(CheckpointError):  # its layers are smaller than those of the reference
        import_checkpoint(folder)
    prefix = find_prefix(folder)
    variables = read_checkpoint(prefix.with_name(f"{prefix.name}.index"), prefix.with_name(prefix.name + DATA_SUFFIX))
    return [value.sum() for value in variables.values()]


def make_torch_file(folder: Path) -> None:
    import torch

    torch.save({"a.weight": torch.ones(3, 2), "a.bias": torch.zeros(3), "n": torch.tensor(3)}, folder / "new.pth")
    torch.save({"a.weight": torch.ones(3, 2)}, folder / "old.pth", _use_new_zipfile_serialization=False)


def read_torch_file(folder: Path) -> Any:
    from vmnet_pipeline.backends.torch_weights import load_torch_file

    return load_torch_file(folder / "new.pth"), load_torch_file(folder / "old.pth")


def make_state(folder: Path) -> None:
    import torch

    from vmnet_pipeline.training.state import StateFolder
    from vmnet_pipeline.types import EpochRecord

    tensors = {"model/a": torch.ones(3), "adam/0/exp_avg": torch.ones(3), "adam/0/step": torch.tensor(2.0)}
    record = EpochRecord(1, 2, {"total": 0.5}, 1.0, 0.1, {"mrr": 0.2}, 1.0)
    StateFolder(folder, "d" * 64).save(tensors, [record], 1, tensors)


def read_state(folder: Path) -> Any:
    from vmnet_pipeline.training.state import StateFolder

    states = StateFolder(folder, "d" * 64)
    return states.load(), states.load_best(1)


# --- the gallery


def make_gallery(folder: Path) -> None:
    import pandas as pd

    from vmnet_pipeline.inference.embeddings import EmbeddingPlan, write_embeddings
    from vmnet_pipeline.search.index_files import save_index
    from vmnet_pipeline.search.vector_index import VectorIndex

    vectors = np.random.default_rng(0).normal(size=(len(IDS), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = pd.DataFrame({"id": IDS, "title": [f"t {i}" for i in IDS], "tags": "rock, jazz", "duration_s": 3.5})
    for side in ("music", "video"):
        planned = EmbeddingPlan(IDS, ("",) * len(IDS), DIM, "d" * 64, iter([vectors]))
        write_embeddings(folder / f"{side}_embeddings", planned)
        save_index(folder / f"{side}_index", VectorIndex.build(vectors, items, about={"checkpoint": "d" * 64}))
    make_manifest(folder)


def seal_gallery(folder: Path) -> None:
    """Checksums of everything but the vectors of faiss, whose own reader trusts what has the right checksum."""
    for described in folder.glob("*_embeddings/contents.json"):
        _renew_checksum(described)
    for version in folder.glob("*_index/version-*"):
        contents = version / "contents.json"
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, OSError):
            described = json.loads(contents.read_bytes())
            items = hashlib.sha256((version / "items.parquet").read_bytes()).hexdigest()
            if described["files"]["items.parquet"] != items:
                described["files"]["items.parquet"] = items
                contents.write_text(json.dumps(described), encoding="utf-8")
        _renew_checksum(contents)
        digest = hashlib.sha256(contents.read_bytes()).hexdigest()
        (version.parent / "current").write_text(f"{version.name} {digest}\n", encoding="ascii")


def read_gallery(folder: Path) -> Any:
    from vmnet_pipeline.serving.gallery import load_gallery
    from vmnet_pipeline.types import CollectionPlaces

    places = CollectionPlaces(folder, folder / "checkpoint", folder / "manifest.parquet", folder, (Path("/m"),), folder)
    gallery = load_gallery(places, 3)
    hits = gallery.sides["music"].index.search(np.ones((1, DIM), np.float32), 3, ["duration<60", "tag=rock"])
    return json.dumps([gallery.describe_item(hits[0][0].id) if hits[0] else None, list(gallery.map_points)])


# --- requests


def make_search_body(folder: Path) -> None:
    make_checkpoint(folder)
    (folder / "body").write_text(
        json.dumps(
            {
                "features": [[0.5] * 12, [1e-3] * 12],
                "query": "music",
                "top_k": 5,
                "filters": ["tag=rock", "duration<60"],
            }
        )
    )
    (folder / "embedding").write_text(json.dumps({"embedding": [0.5] * DIM, "top_k": 3}))


@functools.lru_cache(maxsize=1)
def _load_network(folder: Path) -> Any:
    from vmnet_pipeline import Embedder

    return Embedder.load(folder)


@functools.lru_cache(maxsize=1)
def _load_gallery(folder: Path) -> Any:
    from vmnet_pipeline.serving.gallery import load_gallery
    from vmnet_pipeline.types import CollectionPlaces

    make_gallery(folder)
    return load_gallery(CollectionPlaces(folder, folder, folder / "none", folder, (), folder), 3)


def read_search_body(folder: Path) -> Any:
    """What the routes do with a JSON body, the worker's part too."""
    from vmnet_pipeline.serving import schemas
    from vmnet_pipeline.serving.worker import Task, _answer
    from vmnet_pipeline.serving.worker_pool import _refuse

    (folder / "gallery").mkdir(exist_ok=True)
    embedder, gallery = _load_network(folder), _load_gallery(folder / "gallery")
    found = []
    for name in ("body", "embedding"):
        wanted = schemas.read_query(schemas.Search, (folder / name).read_bytes())
        if wanted.id is not None:
            vector = gallery.find_vector(wanted.id, wanted.query)
        elif wanted.embedding is not None:
            vector = gallery.check_vector(wanted.embedding, wanted.query)
        else:
            features = schemas.read_features(wanted.features)
            answer = _answer(embedder, Task(wanted.query, features=features, pooled=wanted.pooled))
            if answer.embedding is None:
                raise _refuse(answer)
            vector = answer.embedding[:1]
        found.append(
            json.dumps(gallery.search(vector, "music", min(wanted.top_k, 100), wanted.filters)[0], allow_nan=False)
        )
    return found


def draw_json_body() -> Any:
    from hypothesis import strategies as st

    number = st.one_of(st.integers(), st.integers(-(10**400), 10**400), st.floats(), st.just("A LONG NUMBER"))
    value = st.recursive(
        st.one_of(st.none(), st.booleans(), number, st.text(max_size=20)),
        lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
        max_leaves=20,
    )
    matrix = st.lists(st.lists(st.one_of(number, value), min_size=11, max_size=13), max_size=3)
    comparison = st.builds("{}{}{}".format, st.sampled_from(["tag", "duration", "id", "", "x" * 90, " "]),
                           st.sampled_from(["=", "<", ">=", "!=", "", "=<"]), st.text(max_size=30))  # fmt: skip
    body = st.fixed_dictionaries(
        {},
        optional={
            "id": st.one_of(st.sampled_from([*IDS, "../x", "\0", "\ud800", "a" * 300]), value),
                "features": st.one_of(matrix, value),
            "embedding": st.one_of(st.lists(number, min_size=DIM, max_size=DIM), value),
                "pooled": st.one_of(st.booleans(), value),
            "query": st.one_of(st.sampled_from(["music", "video"]), value), "top_k": number,
            "filters": st.one_of(st.lists(comparison, max_size=4), value), "same_side": value,
        },
    )  # fmt: skip

    return body.map(lambda content: json.dumps(content).encode().replace(b'"A LONG NUMBER"', b"9" * 5000))


FORM_TYPE = "multipart/form-data; boundary=x1"


def make_form(folder: Path) -> None:
    head = b'--x1\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    part = b'--x1\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\nContent-Type: video/mp4\r\n\r\n'
    (folder / "form").write_bytes(head + part + b"\x00\x01media" * 40 + b"\r\n--x1--\r\n")
    (folder / "kind").write_text(FORM_TYPE)


@functools.cache
def _upload_folder() -> Any:
    from vmnet_pipeline.serving.upload_folder import UploadFolder

    return UploadFolder()


def read_form(folder: Path) -> Any:
    from fastapi import Request

    from vmnet_pipeline.serving.uploads import receive_upload

    content, kind = (folder / "form").read_bytes(), (folder / "kind").read_bytes()
    pieces = [content[start : start + 37] for start in range(0, len(content), 37)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def take() -> int:
        request = Request(
            {"type": "http", "headers": [(b"content-type", kind)], "method": "POST", "path": "/"}, receive
        )
        async with receive_upload(request, _upload_folder(), 4096) as (path, size):
            assert path.stat().st_size == size <= 4096
            return size

    return asyncio.run(take())


TARGETS = (
    Target("media.csv", make_media_csv, read_media_csv, ("media.csv",), draw=draw_csv),
    Target("csv of ids", make_ids, read_id_file, ("train.csv",), draw=draw_csv),
    Target("csv files of pairs_dir", make_pairs_dir, read_pairs_dir, ("*.csv",)),
    Target("npy files of pairs_dir", make_pairs_dir, read_pairs_dir, ("train/audio/a1.npy", "test/video/*.npy"),
        draw=draw_npy),
    Target("feature store", make_store, read_store, ("*.npy", "_index/*")),
    Target("packed pairs", make_packed, read_packed, ("pooled/*", "steps/*")),
    Target("packed pairs, checksum made to fit", make_packed, read_packed, ("*/pairs.json",), seal_packed),
    Target("manifest", make_manifest, read_manifest, ("manifest.parquet",)),
    Target("checkpoint", make_checkpoint, read_network, ("*",)),
    Target("checkpoint, checksum made to fit", make_checkpoint, read_network, ("*",), seal_checkpoint),
    Target("TensorFlow 1 checkpoint", make_tf_checkpoint, read_tf_checkpoint, ("*",)),
    Target("weight file of torch", make_torch_file, read_torch_file, ("*.pth",)),
    Target("weights.yml", make_weight_table, read_weight_file, ("conf/local/weights.yml",)),
    Target("training state", make_state, read_state, ("*.safetensors",)),
    Target("search index and embeddings", make_gallery, read_gallery, ("*_index/*", "*_index/*/*", "*_embeddings/*",
        "manifest.parquet")),
    Target("search index, checksums made to fit", make_gallery, read_gallery,
           ("*_index/*/contents.json", "*_index/*/items.parquet", "*_embeddings/*"), seal_gallery),
    Target("body of a search, JSON", make_search_body, read_search_body, ("body", "embedding"), draw=draw_json_body),
    Target("body of an upload, multipart", make_form, read_form, ("form", "kind")),
)  # fmt: skip
