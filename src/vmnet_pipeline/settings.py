"""Project settings of Kedro. What a user may want to change is in `conf/`; nothing heavy is imported here."""

import logging
import os
import warnings

from vmnet_pipeline.hooks.config_loader import ProjectConfigLoader
from vmnet_pipeline.hooks.project import FolderHooks, ProjectHooks
from vmnet_pipeline.hooks.steps import StepHooks
from vmnet_pipeline.hooks.tracking import TrackingHooks
from vmnet_pipeline.ingestion.ids import name_collection
from vmnet_pipeline.storage.paths import name_local
from vmnet_pipeline.storage.telemetry import disable_telemetry
from vmnet_pipeline.tracking.stages import StageHooks

# Nothing is sent anywhere, and no start waits for the network.
disable_telemetry()
# A tracking server that is gone costs seconds, not the minutes that MLflow would wait.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# Known and harmless, but printed at every command: namespaces are meant to put dots into names.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
# So are those that filters of other packages let through. They go to the logger py.warnings, see conf/logging.yml.
logging.captureWarnings(True)

HOOKS = (FolderHooks(), ProjectHooks(), StepHooks(), StageHooks(), TrackingHooks())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-mlflow", "kedro_mlflow")  # TrackingHooks calls them

CONFIG_LOADER_CLASS = ProjectConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "custom_resolvers": {"collection": name_collection, "local": name_local},
}
