"""Damaged and hostile files: a value or one of the project's errors, never code that somebody else wrote."""

import ast
import contextlib
import json
import os
import pickle
import random
from pathlib import Path

import numpy as np
import parsers
import pytest
from fuzzing import Target, fuzz, mutate

from vmnet_pipeline.errors import VmnetError
from vmnet_pipeline.storage.arrays import map_array, read_array, read_array_shape

SOURCE = Path(__file__).parents[2] / "src" / "vmnet_pipeline"


@pytest.mark.process
def test_every_reader_gives_a_value_or_an_error_of_ours(tmp_path):
    rows = parsers.fuzz_parsers(tmp_path, n_cases=24, seed=1)
    assert [failure for row in rows for failure in row.failures] == []
    assert len(rows) == 18
    assert all(row.tried == 24 for row in rows)
    assert sum(len(row.ended) > 1 for row in rows) >= 12  # most are read now and then in spite of the damage


# --- the fuzzer finds what it is there for


def read_badly(folder):
    content = (folder / "a.txt").read_bytes()
    if content.startswith(b"A"):
        return content
    if len(content) % 3 == 0:
        os.abort()
    if len(content) % 3 == 1:
        return bytearray(1 << 40)
    raise KeyError("boom")


@pytest.mark.process
def test_the_fuzzer_tells_deaths_allocations_and_foreign_errors(tmp_path):
    target = Target("toy", lambda folder: (folder / "a.txt").write_bytes(b"A" * 9), read_badly, ("a.txt",))
    result = fuzz(target, tmp_path, 60, 0)
    told = " ".join(result["failures"])
    assert "SIGABRT" in told
    assert "MemoryError" in told
    assert "KeyError" in told
    assert result["ended"]["value"] > 0


def test_a_seed_damages_in_the_same_way_again():
    content = json.dumps({"a": [1, 2, 3], "b": "text"}).encode()
    first, second = ([mutate(content, random.Random(seed)) for seed in range(50)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 30


# --- arrays


def save(path, array, **changes):
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, {**header, **changes})
        file.write(array.tobytes())


@pytest.mark.parametrize("read", [read_array, map_array, read_array_shape])
@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (10**15,)}, {"shape": (3, 2**62)}, {"shape": (-1,)}, {"descr": "|O"}, {"descr": "<U6"},
            {"descr": "<c8"},
    ],
)  # fmt: skip
def test_an_array_that_says_more_than_it_holds(tmp_path, read, changes):
    save(tmp_path / "a.npy", np.arange(6, dtype=np.float32), **changes)
    with pytest.raises(ValueError, match=r"declares|not numbers"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.float16(3),
        np.ones((0, 4), ">f4"),
    ],
)
def test_arrays_are_read_as_numpy_wrote_them(tmp_path, array):
    path = tmp_path / "a.npy"
    np.save(path, array)
    for found in (read_array(path), read_array(path.read_bytes()), map_array(path)):
        np.testing.assert_array_equal(found, array, strict=True)
    assert read_array_shape(path) == np.shape(array)


# --- no code of somebody else's

FORBIDDEN = {"pickle.load", "pickle.loads", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "np.load", "numpy.load", "eval",
             "exec", "pd.read_pickle", "joblib.load", "marshal.loads", "shelve.open", "os.system"}  # fmt: skip
KNOWN = {
    ("training/distributed.py", "pickle.loads"),  # what the process group itself sent
    ("soundtrack/confined.py", "pickle.loads"),  # what the process that starts it asks for
    ("media/sandbox_child.py", "pickle.loads"),  # what a child of this process sent
    ("backends/torch_weights.py", "torch.load"),  # with weights_only
}


def find_calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in FORBIDDEN:
            yield (
                (path.relative_to(SOURCE).as_posix(), name),
                {word.arg: ast.unparse(word.value) for word in node.keywords},
            )


def test_nothing_in_the_package_runs_what_a_file_says():
    calls = dict(call for path in SOURCE.rglob("*.py") for call in find_calls(path))
    assert calls.keys() == KNOWN
    assert calls["backends/torch_weights.py", "torch.load"]["weights_only"] == "True"
    texts = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")]
    assert not [text for text in texts if "allow_pickle=True" in text]


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_wherever_a_file_can_be_put_does_not_run(tmp_path):
    import parser_targets
    import torch

    mark = tmp_path / "it-ran"
    bombs = [pickle.dumps(Bomb(mark), protocol) for protocol in (0, 2, 4)]
    np.save(tmp_path / "bomb.npy", np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    torch.save({"a": Bomb(mark)}, tmp_path / "bomb.pth")
    bombs += [(tmp_path / name).read_bytes() for name in ("bomb.npy", "bomb.pth")]
    bombs.append(f"!!python/object/apply:os.mkdir ['{mark}']".encode())
    n_tried = 0
    for number, target in enumerate(parser_targets.TARGETS):
        folder = tmp_path / str(number)
        folder.mkdir()
        target.make(folder)
        places = sorted(path for pattern in target.files for path in folder.glob(pattern) if path.is_file())
        for place in places[:: max(1, len(places) // 3)]:
            content = place.read_bytes()
            for bomb in bombs:
                place.write_bytes(bomb)
                with contextlib.suppress(VmnetError):
                    target.read(folder)
                n_tried += 1
            place.write_bytes(content)
    assert n_tried > 200
    assert not mark.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "bomb.pth", weights_only=True)
    pickle.loads(bombs[0])
    assert mark.exists()  # the bomb is one
