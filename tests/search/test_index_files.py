"""A saved index: whole or not there, every flipped byte found, old versions readable whatever happens to a writer."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.params import IndexParams
from vmnet_pipeline.search import index_files
from vmnet_pipeline.search.index_files import load_index, save_index
from vmnet_pipeline.search.vector_index import VectorIndex

DIM = 8


def draw(n, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_index(n=20, kind="flat", seed=0):
    items = pd.DataFrame({"id": [f"{i:03d}" for i in range(n)], "title": [f"title {i}" for i in range(n)]})
    params = IndexParams.model_validate({"kind": kind, "hnsw_links": 8})
    return VectorIndex.build(draw(n, seed), items, params, {"checkpoint": "abc"})


def version_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_what_is_saved_is_loaded(tmp_path, kind):
    index = make_index(kind=kind)
    index.remove(["004"])
    save_index(tmp_path / "index", index)
    loaded = load_index(tmp_path / "index")
    assert loaded.search(draw(3, 1), 30) == index.search(draw(3, 1), 30)
    assert (loaded.kind, loaded.params, loaded.about) == (kind, index.params, {"checkpoint": "abc"})
    assert loaded.items.equals(index.items)
    assert loaded.ids == index.ids
    loaded.add(draw(1, 9), pd.DataFrame({"id": ["new"]}))
    save_index(tmp_path / "index", loaded)
    assert load_index(tmp_path / "index").search(draw(1, 9), 1)[0][0].id == "new"


def test_an_empty_collection_can_be_saved(tmp_path):
    save_index(tmp_path, make_index(0))
    assert load_index(tmp_path).search(draw(1), 5) == [[]]


def test_a_missing_index_is_an_error_that_tells_what_to_do(tmp_path):
    with pytest.raises(SearchIndexError, match=rf"no search index in {tmp_path}.*kedro run --pipelines=embed,index"):
        load_index(tmp_path)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 1.0])
def test_any_flipped_byte_is_found_and_its_file_named(tmp_path, place):
    save_index(tmp_path, make_index())
    names = {path.name for path in version_files(tmp_path)}
    assert names == {"current", "contents.json", "items.parquet", "vectors.faiss"}
    for path in version_files(tmp_path):
        good = path.read_bytes()
        # the last byte of `current` is its line end, and any white space will do there
        position = round(place * (len(good) - (2 if path.name == "current" else 1)))
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x01]) + good[position + 1 :])
        with pytest.raises(SearchIndexError) as caught:
            load_index(tmp_path)
        named = path.name if path.name != "current" else "contents.json|current|missing"
        assert any(name in str(caught.value) for name in named.split("|")), path
        path.write_bytes(good)
    load_index(tmp_path)


def test_a_truncated_or_missing_file_is_named(tmp_path):
    save_index(tmp_path, make_index())
    (path,) = tmp_path.rglob("vectors.faiss")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SearchIndexError, match=r"vectors\.faiss is damaged"):
        load_index(tmp_path)
    path.unlink()
    with pytest.raises(SearchIndexError, match=r"vectors\.faiss is missing"):
        load_index(tmp_path)
    save_index(tmp_path, make_index())  # building anew is the remedy
    assert len(load_index(tmp_path)) == 20


@pytest.mark.parametrize("step", ["_describe", "write_text_atomically", "describe_files"])
def test_a_writer_that_dies_between_two_writes_leaves_the_old_index(tmp_path, monkeypatch, step):
    save_index(tmp_path, make_index(20))
    with monkeypatch.context() as patch:
        patch.setattr(index_files, step, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_index(tmp_path, make_index(30))
    assert len(load_index(tmp_path)) == 20
    save_index(tmp_path, make_index(30))
    assert len(load_index(tmp_path)) == 30


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_index_files import make_index
from vmnet_pipeline.search.index_files import save_index
for n in range(1000):
    save_index(Path(sys.argv[1]), make_index(21 + n % 2))
    print(n, flush=True)
"""


@pytest.mark.process
def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_index(tmp_path):
    save_index(tmp_path, make_index(20))
    folder = os.path.dirname(__file__)  # noqa: PTH120
    for delay_s in (0.0, 0.007):
        command = [sys.executable, "-c", WRITER, str(tmp_path), folder]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        writer.stdout.readline()  # it is at work
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert len(load_index(tmp_path)) in (21, 22)
    save_index(tmp_path, make_index(20))
    assert len(load_index(tmp_path)) == 20
    # what killed writers left is gone: two versions stay, the current one and the one before
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_readers_see_the_old_or_the_new_while_writers_replace_it(tmp_path):
    save_index(tmp_path, make_index(20))
    sizes, errors = set(), []

    def write():
        for n in range(10):
            save_index(tmp_path, make_index(20 + n % 3))

    def read():
        for _ in range(25):
            try:
                index = load_index(tmp_path)
                sizes.add((len(index), len(index.items), index.faiss_index.ntotal))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(daemon=True, target=work) for work in (write, write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sizes <= {(n, n, n) for n in (20, 21, 22)}
