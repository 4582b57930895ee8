"""Find the configuration: `conf/` of a project folder, or the copy that comes with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def find_conf(project: Path | None = None) -> Path:
    """`conf/` of a project folder, by default the current one, else that of the package."""
    own = (project or Path()) / "conf"
    return own if (own / "base").is_dir() else find_shipped_conf()


def find_shipped_conf() -> Path:
    """The configuration that comes with the package; in a checkout, `conf/` next to `src/`."""
    package = Path(str(resources.files("vmnet_pipeline")))
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parents[1] / "conf"
