"""What a process that read a hostile file may answer, and what nobody may make of it."""

from __future__ import annotations

import contextlib
import pickle
import random
import struct
from dataclasses import dataclass

import numpy as np
import pytest

from vmnet_pipeline.media.replies import pack_reply, unpack_reply
from vmnet_pipeline.types import PreparedItem

OWN = {"vmnet_pipeline", "test_replies"}


@dataclass
class Checked:
    value: int

    def __post_init__(self):
        raise AssertionError("code of the class runs")


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -(10**30), 0.1, float("inf"), "text \ud800 ☃", b"bytes", (1, (2, [3])), [], {},
        {1: "a", (2,): b"b"},
    ],
)  # fmt: skip
def test_plain_values_and_records_come_back(value):
    found = unpack_reply(pack_reply(value), OWN)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)), np.float32(1.5),
        np.zeros((0, 4), np.uint8), np.array(True), np.array(7), np.ones((2, 3, 4), np.float16)[:, ::2],
    ],
)  # fmt: skip
def test_arrays_come_back_and_may_be_changed(array):
    found = unpack_reply(pack_reply([array, b"behind"]), OWN)
    np.testing.assert_array_equal(found[0], array, strict=True)
    assert type(found[0]) is type(array)
    assert found[1] == b"behind"
    if isinstance(found[0], np.ndarray):
        assert found[0].flags.writeable


def test_a_prepared_item_comes_back():
    item = unpack_reply(pack_reply(PreparedItem(np.ones((2, 3), np.float32), 2)), OWN)
    assert isinstance(item, PreparedItem)
    assert (item.inputs.shape, item.n_valid) == ((2, 3), 2)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None]), np.array(["a"]), print, 1j, ValueError("x")])
def test_other_things_are_not_sent(value):
    with pytest.raises(TypeError, match="may answer with"):
        pack_reply([value])


def send(text, rest=b""):
    return struct.pack("<Q", len(text)) + text.encode() + rest


HOSTILE = {
    "nothing": b"",
    "pickle": pickle.dumps(print),
    "long text": struct.pack("<Q", 1 << 62) + b"{}",
    "deep": send("[" * 100_000),
    "list": send("[1]"),
    "empty": send("{}"),
    "unknown kind": send('{"record2": [1]}'),
    "method": send('{"record": ["vmnet_pipeline.types", "PreparedItem"]}'),
    "private builder": send('{"record_": 1}'),
    "class elsewhere": send('{"record": ["subprocess", "Popen"], "fields": {}}'),
    "module not imported": send('{"record": ["vmnet_pipeline.none", "A"], "fields": {}}'),
    "no dataclass": send('{"record": ["vmnet_pipeline.media.replies", "pack_reply"], "fields": {}}'),
    "through a dataclass": send(
        '{"record": ["vmnet_pipeline.types", "PreparedItem.__init__.__globals__"], "fields": {}}'
    ),
    "through an import": send('{"record": ["vmnet_pipeline.media.replies", "sys.modules"], "fields": {}}'),
    "other fields": send('{"record": ["vmnet_pipeline.types", "PreparedItem"], "fields": {"inputs": 1}}'),
    "too many bytes": send('{"bytes": 9}', b"12345678"),
    "negative": send('{"bytes": -1}', b"12345678"),
    "bytes that are true": send('{"bytes": true}', b"12345678"),
    "huge array": send('{"array": ["<f4", [4611686018427387904, 4]]}'),
    "zero times huge": send('{"array": ["<f4", [0, 4611686018427387904, 4611686018427387904]]}'),
    "objects": send('{"array": ["|O", [1]]}', b"12345678"),
    "fields in an array": send('{"array": ["<f4,<f4", [1]]}', b"12345678"),
    "shape of true": send('{"array": ["<f4", [true]]}', b"12345678"),
    "long number": send("9" * 5000),
    "key that is a list": send('{"dict": [[{"list": []}, 1]]}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_refused(name):
    with pytest.raises(ValueError):
        unpack_reply(HOSTILE[name], OWN)


def test_damaged_answers_are_values_or_refused():
    content = pack_reply({"a": [PreparedItem(np.ones((2, 3), np.float32), 2), b"xyz", (1.5, None)]})
    chance = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 2, 5))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with contextlib.suppress(ValueError):
            unpack_reply(bytes(damaged[: chance.randrange(1, len(damaged) + 1)]), OWN)


def test_code_of_a_record_does_not_run():
    record = object.__new__(Checked)
    record.value = 3
    assert unpack_reply(pack_reply(record), OWN).value == 3
