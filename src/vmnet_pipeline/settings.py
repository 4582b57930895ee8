"""Project settings of Kedro. What a user may want to change is in `conf/`; nothing heavy is imported here."""

import warnings

from vmnet_pipeline.hooks import ProjectHooks
from vmnet_pipeline.naming import name_collection

# Known and harmless, but printed at every command: namespaces are meant to put dots into names, and mlflow
# warns about a class of its own while it is imported.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.'")
warnings.filterwarnings("ignore", message=".*Add type hints to the `predict` method", module="mlflow")

HOOKS = (ProjectHooks(),)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "custom_resolvers": {"collection": name_collection},
}
