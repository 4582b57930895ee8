"""A tiny collection of real clips, embedded with random weights, and a running service of it."""

from __future__ import annotations

import time

import httpx
import pandas as pd
import pytest
from serving_collection import build_collection, run_live

COUNT = 6


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    return build_collection(tmp_path_factory.mktemp("served"), COUNT)


@pytest.fixture(scope="session")
def service(places):
    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.state import Service

    return Service(
        places, ServeParams(max_upload_mb=4, max_json_mb=1, max_duration_s=30, max_waiting=3, reload_every_s=0.05)
    )


@pytest.fixture(scope="session")
def live(service):
    """Address of the running service, its networks loaded."""
    with run_live(service) as address:
        deadline = time.monotonic() + 120
        while service.find_fault() and time.monotonic() < deadline:
            assert not service.state.pool.failure, service.state.pool.failure
            time.sleep(0.05)
        yield address


@pytest.fixture
def client(live):
    with httpx.Client(base_url=live, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def manifest(places):
    return pd.read_parquet(places.manifest).set_index("id")
