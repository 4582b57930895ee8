"""A tiny collection of real clips, embedded with random weights, and a running service of it."""

from __future__ import annotations

import time

import httpx
import pandas as pd
import pytest
from page_visit import Visit, start_browser
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


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, live):
    browser.get_log("browser")
    yield Visit(browser, live)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def with_results(page, manifest):
    """The page with all answers to a video, also several of a group."""
    page.send(manifest.loc["0001", "video_path"])
    page.wait(lambda: page.all("#results li"))
    page.one("#one").click()
    page.wait(lambda: len(page.all("#results li")) == 6)
    return page


@pytest.fixture
def sounding(manifest):
    """A video file with audio; that of other clips is a file beside it."""
    return manifest.loc[manifest["video_path"] == manifest["audio_path"], "video_path"].iloc[0]
