"""Picture the page, the report and Kedro-Viz as they are, for README and docs.

    python docs/make_pictures.py [--project FOLDER] [page | report | viz ...]      # or `make pictures`

FOLDER (by default this one) is a project where `make demo` and its embed and index were run, as `make pictures` does. Needs Chromium with
chromedriver, as the tests of the page. `docs/images/pictures.json` keeps a digest of what each picture shows; a test
compares it, so that a changed page or report asks for new pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import runpy
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
IMAGES = DOCS / "images"
RECORD = IMAGES / "pictures.json"
SOURCES = {
    "page": (ROOT / "src/vmnet_pipeline/serving/page", "*"),
    "report": (ROOT / "src/vmnet_pipeline/reporting/templates", "*"),
    "viz": (IMAGES, "pipeline-default.svg"),  # drawn from the same graph
}
WIDTH_PX, HEIGHT_PX = 1280, 900
QUALITY = 80
VARIANT = "vmnet_musicnn"  # that of `make demo`
HIDE_HINTS = """const style = document.createElement('style');
style.textContent = '[class^=feature-hints] {display: none}';
document.head.append(style)"""


def digest_sources(name: str) -> str:
    """SHA-256 of the files that a picture shows, names included."""
    folder, pattern = SOURCES[name]
    total = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def find_stale() -> list[str]:
    """Names of pictures that are not there, or older than what they show."""
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    fresh = {name for name in SOURCES if record.get(name) == digest_sources(name)}
    return [name for name in SOURCES if name not in fresh or not (IMAGES / f"{name}.webp").exists()]


@contextmanager
def serve_demo(project: Path) -> Iterator[str]:
    """Address of the page of a project, until the block ends."""
    words = [str(Path(sys.executable).with_name("vmnet-pipeline")), "serve", "--variant", VARIANT, "--port", "0"]
    with subprocess.Popen(words, cwd=project, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = next((line for line in server.stdout or () if "http://" in line), "")
            if not line:
                sys.exit("kedro serve did not start; see `make pictures`")
            address = line.split()[3]
            wait_until_ready(address)
            yield address
        finally:
            server.terminate()


def wait_until_ready(address: str, seconds: float = 300) -> None:
    """Wait until the networks of a service are loaded."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address.rstrip('/')}/readyz", timeout=10).close()  # noqa: S310  (own address)
        except OSError:
            time.sleep(0.5)
        else:
            return
    sys.exit(f"the service is not ready after {seconds:.0f} s")


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Address of a folder of files, until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def show_page(driver: Any, project: Path) -> bytes:
    """The page with answers to a clip of the demo."""
    visit_page = runpy.run_path(str(ROOT / "tests/serving/page_visit.py"))["Visit"]
    with serve_demo(project) as address:
        visit = visit_page(driver, address)
        visit.wait(lambda: visit.one("#file").is_enabled(), 120)
        visit.one("#file").send_keys(str(sorted((project / "data/01_raw/demo/video").glob("*.mp4"))[0].resolve()))
        visit.wait(lambda: visit.all("#results li"), 120)
        visit.wait(lambda: visit.one("#passage").is_displayed(), 120)
        visit.run("window.scrollTo(0, document.querySelector('#file').closest('section, form, div').offsetTop)")
        time.sleep(2)  # pictures of the media
        return bytes(driver.get_screenshot_as_png())


def show_report(driver: Any, project: Path) -> bytes:
    """The beginning of the report of the demo."""
    reports = sorted((project / "data/08_reporting/demo").glob(f"{VARIANT}/report.html"))
    if not reports:
        sys.exit(f"no report below {project}: run the demo first")
    driver.get(reports[-1].resolve().as_uri())
    return bytes(driver.get_screenshot_as_png())


def show_viz(driver: Any, project: Path) -> bytes:
    """The pipelines in Kedro-Viz."""
    build_viz = runpy.run_path(str(DOCS / "build_site.py"))["build_viz"]
    with tempfile.TemporaryDirectory() as folder:
        build_viz(Path(folder) / "viz")
        with serve_folder(Path(folder) / "viz") as address:
            driver.get(address)
            deadline = time.monotonic() + 60
            while not driver.find_elements("css selector", ".pipeline-node") and time.monotonic() < deadline:
                time.sleep(0.2)
            driver.execute_script(HIDE_HINTS)
            time.sleep(3)  # the graph moves to its place
            return bytes(driver.get_screenshot_as_png())


SHOWN = {"page": show_page, "report": show_report, "viz": show_viz}


def write_picture(name: str, png: bytes) -> None:
    """Store a picture as WebP, and what it shows."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(IMAGES / f"{name}.webp", quality=QUALITY, method=6)
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    record[name] = digest_sources(name)
    RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")


def main() -> None:
    """Make the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="page, report or viz; all by default")
    parser.add_argument("--project", type=Path, default=ROOT)
    options = parser.parse_args()
    start_browser = runpy.run_path(str(ROOT / "tests/serving/page_visit.py"))["start_browser"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = start_browser(profile)
        try:
            size = {"width": WIDTH_PX, "height": HEIGHT_PX, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
            for name in options.names or SHOWN:
                write_picture(name, SHOWN[name](driver, options.project))
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
