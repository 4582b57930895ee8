"""Work ahead in threads: in order, bounded, errors where they belong."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from vmnet_pipeline.prefetch import read_ahead, run_ahead


def test_batches_come_in_order_one_ahead() -> None:
    seen: list[int] = []

    def read(rows: np.ndarray) -> int:
        seen.append(int(rows[0]))
        return int(rows[0])

    batches = read_ahead(read, [np.array([i]) for i in range(5)])
    assert next(batches) == 0
    assert set(seen) <= {0, 1}  # no further than the next one, however fast reading is
    assert list(batches) == [1, 2, 3, 4]
    assert seen == [0, 1, 2, 3, 4]
    assert list(read_ahead(read, [])) == []


def test_an_error_of_reading_reaches_the_step_that_needs_the_batch() -> None:
    def read(rows: np.ndarray) -> int:
        return 1 // int(rows[0])

    batches = read_ahead(read, [np.array([1]), np.array([0])])
    assert next(batches) == 1
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_requests_overlap_and_keep_their_order_and_their_errors():
    together = threading.Barrier(4)

    def call(item):
        together.wait(timeout=30)  # breaks unless four run at the same time
        if item == 5:
            raise ValueError("five")
        return item

    found = list(run_ahead(call, range(8), 4))
    assert [get() for get in found[:5]] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        found[5]()
    assert [get() for get in run_ahead(lambda item: item, [1, 2], 0)] == [1, 2]
