"""What decoders may do to the process they run in; imported there by its name."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.container import open_media_file
from vmnet_pipeline.media.probe import probe_media
from vmnet_pipeline.media.video import sample_frames

N_CALLS = 0


def read(path: str, *, factor: int = 1) -> tuple[int, int]:
    """(process, content as a number); what a good reader does."""
    return os.getpid(), factor * int(Path(path).read_text())


def refuse(path: str) -> None:
    raise MediaError("empty_file", f"{path}: nothing in it")


def fail(path: str) -> None:
    raise ZeroDivisionError(path)


def crash(path: str) -> None:
    ctypes.string_at(0)


def crash_late(path: str) -> int:
    """Crash in every call of a process but its first one: as if an earlier file had damaged it."""
    global N_CALLS
    N_CALLS += 1
    return crash(path) or 0 if N_CALLS > 1 else os.getpid()


def hang(path: str) -> None:
    """Hang and hold the interpreter's lock; one who opens the pipe of this name for writing waits until it is so."""
    if Path(path).is_fifo():
        os.open(path, os.O_RDONLY)
    ctypes.PyDLL(None).sleep(3600)


def spin(path: str) -> None:
    while True:
        pass


def swallow_memory(path: str) -> int:
    return int(np.ones(1 << 30, np.uint8)[-1])


def answer_too_much(path: str) -> bytes:
    return bytes(500 << 20)


def leak(path: str) -> int:
    """Take 40 MB more in every call and keep them."""
    sys.modules[f"leak {time.monotonic_ns()}"] = np.ones(40 << 20, np.uint8)
    return os.getpid()


def leak_in_cycle(path: str) -> int:
    """Leave 40 MB in a reference cycle that nothing but a full collection frees."""
    gc.disable()
    cycle: list[object] = [np.ones(40 << 20, np.uint8)]
    cycle.append(cycle)
    return os.getpid()


def take(path: str, *, megabytes: int) -> int:
    return int(np.ones(megabytes << 20, np.uint8)[-1]) and os.getpid()


def count_data(path: str) -> int:
    """Megabytes of data this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE") >> 20


def probe_and_count(path: str) -> tuple[int, int]:
    """(process, megabytes it holds) after a film was probed and sampled."""
    probe_media(path, checksum="x")
    assert len(list(sample_frames(path, rate_hz=25.0))) == 3
    return os.getpid(), count_data(path)


def print_much(path: str) -> int:
    print("x" * 100_000)
    return 3


def run_out_of_time(path: str) -> None:
    """End as the system ends a process that has used up what it may."""
    os.kill(os.getpid(), signal.SIGXCPU)


def read_in_turn(path: str) -> bytes:
    """The content, and its last byte once more; two openings of the file are read in turn."""
    with open_media_file(path) as first, open_media_file(path) as second:
        size = second.seek(0, 2)
        pieces = []
        while piece := first.read(100_000):
            second.seek(size - 1)
            last = second.read(1)
            pieces.append(piece)
        return b"".join(pieces) + last


def count(path: str, *, n: int) -> Iterator[int]:
    """n values, one after the other."""
    yield from range(n)


def count_and_crash(path: str, *, n: int) -> Iterator[int]:
    yield from range(n)
    ctypes.string_at(0)


def count_and_refuse(path: str, *, n: int) -> Iterator[int]:
    yield from range(n)
    raise MediaError("undecodable_audio", f"{path}: no more")


def yield_arrays(path: str, *, n: int, n_bytes: int) -> Iterator[np.ndarray]:
    for _ in range(n):
        yield np.zeros(n_bytes, np.uint8)
