"""No command of this project reports its use, nor does what it calls."""

from __future__ import annotations

import os

_SWITCHES = {"KEDRO_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def disable_telemetry() -> None:
    """Set what Kedro and MLflow read; before MLflow is imported.

    A project has `.telemetry` for Kedro too, which is easily left behind when it is copied.
    """
    for name, value in _SWITCHES.items():
        if not os.environ.get(name):
            os.environ[name] = value
