"""Find the configuration: `conf/` of a project folder, or the copy that comes with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def find_conf(project: Path | None = None) -> Path:
    """The folder with the environments of settings, `base` among them.

    Args:
        project: Folder of a project; by default the current one.

    Returns:
        `conf/` of that folder where it has one, else that of the package.
    """
    own = (project or Path()) / "conf"
    return own if (own / "base").is_dir() else find_shipped_conf()


def find_shipped_conf() -> Path:
    """The configuration that comes with the package; in a checkout, `conf/` next to `src/`."""
    package = Path(str(resources.files("vmnet_pipeline")))
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parents[1] / "conf"
