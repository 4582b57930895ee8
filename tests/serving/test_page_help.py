"""Pages beside the page: the description of the HTTP API and the help."""

import httpx
import pytest
from page_visit import CHROMIUM, DRIVER, Visit
from test_page import AXE, find_faults

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here"),
]


def test_the_page_links_to_both(page):
    for link in page.all("nav a"):
        assert httpx.get(link.get_attribute("href")).status_code == 200
    assert len(page.all("nav a")) == 2


@pytest.mark.parametrize("name", ["docs", "help.html"])
def test_they_load_nothing_from_elsewhere_and_are_accessible(browser, live, name):
    browser.get_log("browser")
    page = Visit(browser, f"{live}/{name}", wait=False)
    page.wait(lambda: len(page.all("main section")) >= 4)
    loaded = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [address for address in loaded if not address.startswith(live)] == []
    page.resize(390, 844, mobile=True)
    assert page.run("return document.documentElement.scrollWidth") <= 390
    assert page.complaints() == []
    if AXE.is_file():
        assert find_faults(page) == []


def test_every_operation_is_described(browser, live):
    page = Visit(browser, f"{live}/docs", wait=False)
    page.wait(lambda: page.all("main section"))
    titles = {title.text for title in page.all("main h2")}
    paths = httpx.get(f"{live}/openapi.json").json()["paths"]
    assert titles >= {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    text = page.one("main").text
    assert "one_per_group" in text and "curl --json" in text
