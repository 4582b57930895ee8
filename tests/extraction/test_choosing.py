"""Where an extraction runs follows from cores, free memory and items; what the parameters name is kept."""

from __future__ import annotations

import pytest

from vmnet_pipeline.extraction import choosing
from vmnet_pipeline.extraction.choosing import MIN_ITEMS_FOR_PROCESSES, choose_workers
from vmnet_pipeline.params import ExtractParams

MANY = MIN_ITEMS_FOR_PROCESSES
PROCESSES, SERIAL = {"executor": {"kind": "processes"}}, {"executor": {"kind": "serial"}}


@pytest.mark.parametrize(
    ("params", "n_items", "cores", "memory_mb", "expected"),
    [
        ({}, MANY - 1, 2, 16_000, ("serial", 2, 2)),
        ({}, 5, 64, 256_000, ("serial", 64, 64)),
        ({}, MANY, 2, 16_000, ("processes", 2, 1)),
        ({}, MANY, 1, 16_000, ("processes", 1, 1)),
        ({}, MANY, 2, None, ("processes", 2, 1)),
        ({}, MANY, 64, 256_000, ("processes", 2, 32)),
        ({}, 100_000, 64, 256_000, ("processes", 64, 1)),
        ({}, 100_000, 64, 9_000, ("processes", 8, 8)),
        ({}, 100_000, 64, 2_000, ("serial", 64, 64)),
        ({"n_workers": 3}, 100_000, 8, 16_000, ("processes", 3, 2)),
        ({"n_workers": 3}, 10, 8, 16_000, ("serial", 3, 3)),
        ({"executor": {"address": "tcp://a:1"}}, 1, 2, 16_000, ("dask", 0, None)),
        (SERIAL, MANY, 2, 16_000, ("serial", 2, 2)),
        (PROCESSES, 1, 4, 500, ("processes", 4, 1)),
    ],
)
def test_workers_follow_cores_memory_and_items(params, n_items, cores, memory_mb, expected, monkeypatch):
    monkeypatch.setattr(choosing, "count_cores", lambda: cores)
    monkeypatch.setattr(choosing, "find_free_memory_mb", lambda: memory_mb)
    workers = choose_workers(ExtractParams.model_validate(params), n_items)
    assert (workers.kind, workers.n_workers, workers.n_cores) == expected


@pytest.mark.parametrize(
    ("params", "n_items", "memory_mb", "line"),
    [
        ({}, 9, 16_384, "in this process, threads: 2 (fewer than 256 items)"),
        ({}, 300, 16_384, "in processes: 2, cores of each: 1 (300 items, 2 cores, 16.0 GB of memory free)"),
        ({}, 300, 1_024, "in this process, threads: 2 (1.0 GB of memory free, processes take 1 GB each)"),
        (PROCESSES, 9, 1_024, "in processes: 2, cores of each: 1 (extract.executor)"),
        ({"executor": {"address": "tcp://a:1"}}, 9, None, "on a Dask cluster (extract.executor)"),
    ],
)
def test_one_line_says_which_and_why(params, n_items, memory_mb, line, monkeypatch):
    monkeypatch.setattr(choosing, "count_cores", lambda: 2)
    monkeypatch.setattr(choosing, "find_free_memory_mb", lambda: memory_mb)
    assert choose_workers(ExtractParams.model_validate(params), n_items).describe() == line
