"""Disable the telemetry of Kedro and MLflow."""

from __future__ import annotations

import os

_SWITCHES = {"KEDRO_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def disable_telemetry() -> None:
    """Set the variables that Kedro and MLflow read; call before importing MLflow.

    A project also has `.telemetry` for Kedro, but it is easily lost when a project is copied.
    """
    for name, value in _SWITCHES.items():
        if not os.environ.get(name):
            os.environ[name] = value
