"""Choose the MLflow server or database of a run, and check that it answers.

MLflow's environment variables take precedence over `mlflow.yml`; paths in them are relative to the caller's folder,
those in `mlflow.yml` to the project.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import ParameterError, StorageError, describe_validation
from vmnet_pipeline.storage.sqlite import allow_weak_disks
from vmnet_pipeline.tracking.database import SCHEME, check_database, find_database, make_database, relate_artifacts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
"""Longest wait for a server before a run begins."""

_PATTERNS = ["mlflow*", "mlflow*/**", "**/mlflow*"]
_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
)
_exported: dict[str, str | None] = {}


def read_settings(loader: Any, project: Path, caller: Path) -> dict[str, Any]:
    """Read MLflow's settings, make their paths absolute, and put them where kedro-mlflow reads them.

    Raises:
        ParameterError: A setting is unknown or has a value that it cannot have.
    """
    from kedro.config import MissingConfigException

    loader.config_patterns.setdefault("mlflow", _PATTERNS)
    try:
        settings = deepcopy(loader["mlflow"] or {})
    except (MissingConfigException, KeyError):
        settings = {}
    server = settings.setdefault("server", {})
    tracking = settings.setdefault("tracking", {})
    given = _read_environment()
    for name, key in (("MLFLOW_TRACKING_URI", "mlflow_tracking_uri"), ("MLFLOW_REGISTRY_URI", "mlflow_registry_uri")):
        folder, uri = (caller, given[name]) if name in given else (project, server.get(key))
        if uri:
            server[key] = _make_absolute(str(uri), folder)
    for name, (part, key) in {"MLFLOW_EXPERIMENT_NAME": ("experiment", "name"), "MLFLOW_RUN_ID": ("run", "id")}.items():
        if name in given:
            tracking.setdefault(part, {})[key] = given[name]
    if given:
        logger.info("MLflow as %s", ", ".join(f"{name} says" for name in given))
    _check(settings)
    loader["mlflow"] = settings
    return settings


def _check(settings: Mapping[str, Any]) -> None:
    from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig
    from pydantic import ValidationError

    try:
        KedroMlflowConfig.model_validate(settings)
    except ValidationError as error:
        raise ParameterError(f"mlflow.yml: {describe_validation(error)}") from error


def _read_environment() -> dict[str, str]:
    """Variables that the user has set; MLflow and kedro-mlflow set some of them for child processes."""
    found = {name: os.environ.get(name) for name in _VARIABLES}
    return {name: value for name, value in found.items() if value and value != _exported.get(name)}


def _note_exported(before: Mapping[str, str | None]) -> None:
    after = {name: os.environ.get(name) for name in _VARIABLES}
    _exported.update({name: value for name, value in after.items() if value != before[name]})


def _make_absolute(uri: str, folder: Path) -> str:
    """Make a local path absolute; the address of a server or another database stays as it is."""
    if uri.startswith(SCHEME):
        path = uri.removeprefix(SCHEME)
        return uri if path in ("", ":memory:") else f"{SCHEME}{folder / path}"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri) or uri in ("databricks", "databricks-uc"):
        return uri
    return str(folder / uri)


def connect(settings: Mapping[str, Any], project: Path, set_up: Callable[[], None]) -> None:
    """Check that MLflow can be used, and let `set_up`, kedro-mlflow's part, set it up.

    Raises:
        Exception: Whatever MLflow, its database or the network raise.
        StorageError: The database is damaged or locked, or a server does not answer in time.
    """
    allow_weak_disks()
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it writes a traceback, then raises it
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a line for every attempt, then raises it
    server = settings.get("server", {})
    tracking, registry = server.get("mlflow_tracking_uri"), server.get("mlflow_registry_uri")
    before = {name: os.environ.get(name) for name in _VARIABLES}
    databases = {uri: path for uri in (tracking, registry) if uri and (path := find_database(uri)) is not None}
    for uri, path in databases.items():
        make_database(uri)
        check_database(path)
    if tracking:
        _with_timeout(tracking, lambda: _ask(tracking, registry))
    _choose_experiment(settings, tracking)
    set_up()
    for path in databases.values():
        relate_artifacts(path, project)
    _note_exported(before)


def _ask(tracking: str, registry: str | None) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking, registry_uri=registry)
    client.search_experiments(max_results=1)
    if registry:
        client.search_registered_models(max_results=1)


def _with_timeout(uri: str, call: Callable[[], None]) -> None:
    """Call, but wait no longer than `TIMEOUT_S`: drivers and MLflow itself retry for minutes."""
    raised: list[Exception] = []

    def attempt() -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=attempt, name="ask-mlflow", daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    if thread.is_alive():
        raise StorageError(f"{hide_password(uri)} does not answer within {TIMEOUT_S:.0f} s")
    if raised:
        raise raised[0]


def _choose_experiment(settings: Mapping[str, Any], tracking: str | None) -> None:
    """Choose the experiment that an id in the environment names, or that of the run to be continued."""
    import mlflow

    given = _read_environment()
    parts = settings["tracking"]
    run_id = parts.get("run", {}).get("id")
    if "MLFLOW_EXPERIMENT_NAME" in given or not (run_id or "MLFLOW_EXPERIMENT_ID" in given):
        return
    client = mlflow.MlflowClient(tracking_uri=tracking)
    number = client.get_run(run_id).info.experiment_id if run_id else given["MLFLOW_EXPERIMENT_ID"]
    parts.setdefault("experiment", {})["name"] = client.get_experiment(number).name


def hide_password(uri: str) -> str:
    """Remove user name and password from an address."""
    return re.sub(r"//[^/@]*@", "//", uri)


def describe_place(settings: Mapping[str, Any], project: Path) -> str:
    """Describe how to view what was logged: a command or the address of a server, and the experiment's name."""
    uri = str(settings.get("server", {}).get("mlflow_tracking_uri") or "mlruns")
    experiment = settings.get("tracking", {}).get("experiment", {}).get("name", "Default")
    path = find_database(uri)
    if path is not None and path.is_relative_to(project):
        uri = f"{SCHEME}{path.relative_to(project)}"
    place = hide_password(uri)
    if not uri.startswith(("http:", "https:")):
        place = f"mlflow ui --backend-store-uri {place}"
    return f"{place}   (experiment {experiment})"
