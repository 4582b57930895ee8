"""Build the documentation in site/: pages written from the code, MkDocs, strictly, and Kedro-Viz.

    python docs/build_site.py            # as `make docs` does
    python docs/build_site.py --check    # writes no page, fails where one is out of date

Nothing in the site is loaded from elsewhere, and no path of this machine is in it.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
SITE = ROOT / "site"
GENERATED = ("parameters", "pipelines", "datasets", "commands", "errors", "overview")
FOREIGN = re.compile(r'<link\b[^>]*\bhref="https?://[^>]*>', re.DOTALL)


def write_pages() -> None:
    """Write every page and drawing that is made from the code."""
    warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")  # namespaces are meant to
    for name in GENERATED:
        runpy.run_path(str(DOCS / f"make_{name}.py"), run_name="__main__")


def find_stale(names: Sequence[str] = GENERATED) -> list[str]:
    """Names of generated files that are not what the code gives."""
    wanted = {}
    for name in names:
        script = runpy.run_path(str(DOCS / f"make_{name}.py"))
        if "make_page" in script:
            wanted[script["TARGET"]] = script["make_page"]()
        if "make_drawings" in script:
            wanted |= {DOCS / "images" / file: text for file, text in script["make_drawings"]().items()}
    return [path.name for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]


def run(*command: str, makes: Path) -> None:
    """Run a command that makes a folder; print what it said only if it fails."""
    shutil.rmtree(makes, ignore_errors=True)
    quiet = {**os.environ, "DO_NOT_TRACK": "1", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=quiet, check=False, capture_output=True, text=True
    )
    if done.returncode or not (makes / "index.html").exists():  # a failed `kedro viz build` has exit code 0
        sys.exit(f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}\n{' '.join(command)} failed")


def build_viz(target: Path) -> None:
    """A static Kedro-Viz; with previews of the demo's tables and plots where the demo has been run."""
    previews = ["--include-previews"] if any((ROOT / "data/08_reporting/demo").glob("*/report.html")) else []
    shutil.rmtree(target, ignore_errors=True)
    made = ROOT / "build"  # where it always writes to
    run("kedro", "viz", "build", *previews, makes=made)
    made.rename(target)
    (target / "telemetry.html").unlink(missing_ok=True)
    for path in (*target.glob("*.html"), *(path for path in (target / "api").rglob("*") if path.is_file())):
        text = path.read_text("utf-8").replace(f"{ROOT}/", "")
        path.write_text(FOREIGN.sub("", text) if path.suffix == ".html" else text, "utf-8")


def main(arguments: list[str]) -> None:
    """Everything, in this order."""
    if "--check" not in arguments:
        write_pages()
    elif stale := find_stale():
        sys.exit(f"{', '.join(stale)} out of date: run `make docs`")
    run("mkdocs", "build", "--strict", makes=SITE)
    build_viz(SITE / "viz")
    print(f"Documentation: {SITE / 'index.html'}")


if __name__ == "__main__":
    main(sys.argv[1:])
