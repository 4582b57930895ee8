"""The database of MLflow in a file, made whole or not at all.

MLflow makes it table by table, and neither it nor a later run can go on with one that a kill left half made.
"""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from vmnet_pipeline.storage.atomic import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext

_SCHEME = "sqlite:///"
_PATTERNS = ["mlflow*", "mlflow*/**", "**/mlflow*"]


class DatabaseHooks:
    """Make the database that conf/base/mlflow.yml names before kedro-mlflow opens it."""

    @hook_impl(tryfirst=True)  # kedro-mlflow does that in the same hook
    def after_context_created(self, context: KedroContext) -> None:
        """Make it if there is none."""
        from kedro.config import MissingConfigException

        loader: Any = context.config_loader
        loader.config_patterns.setdefault("mlflow", _PATTERNS)
        with contextlib.suppress(MissingConfigException, KeyError):
            server = loader["mlflow"].get("server") or {}
            make_database(str(server.get("mlflow_tracking_uri") or ""))


def make_database(uri: str) -> None:
    """Make a database unless there is one; of several processes that do so at once one wins, and all use its.

    Args:
        uri: `sqlite:///FILE`; a server or another database is left alone.

    Raises:
        OSError: The folder cannot be written.
    """
    path = Path(uri.removeprefix(_SCHEME))
    if not uri.startswith(_SCHEME) or path.name in ("", ":memory:") or path.exists():
        return
    import mlflow

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{path.suffix}")
    try:
        mlflow.MlflowClient(tracking_uri=f"{_SCHEME}{temporary}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)  # unlike renaming, this never takes the place of another process's
    finally:
        temporary.unlink(missing_ok=True)
