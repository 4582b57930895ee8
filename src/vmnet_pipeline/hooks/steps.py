"""Log one line for each step of a run, with its time."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from vmnet_pipeline.progress import describe_seconds

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)


class StepHooks:
    """Log every node when its last output is saved; Kedro's own three lines are at a level that conf/logging.yml hides.

    Loading and saving count, and nodes may run in threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: dict[str, float] = {}
        self._unsaved: dict[str, int] = {}
        self._begun, self._total = 0.0, 0

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Count the steps."""
        self._begun, self._total = time.monotonic(), len(pipeline.nodes)
        self._started = {}
        self._unsaved = {node.name: len(node.outputs) for node in pipeline.nodes}

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """Start with the first input."""
        self._started.setdefault(node.name, time.monotonic())

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start here, if there are no inputs."""
        self._started.setdefault(node.name, time.monotonic())

    @hook_impl
    def after_dataset_saved(self, node: Node) -> None:
        """Log the step with its last output."""
        with self._lock:
            self._unsaved[node.name] = self._unsaved.get(node.name, 1) - 1
            if self._unsaved[node.name] != 0:
                return
            n_done = sum(not left for left in self._unsaved.values())
        seconds = time.monotonic() - self._started.get(node.name, self._begun)
        logger.info("step %d of %d: %s, %s", n_done, self._total, node.name, describe_seconds(seconds))

    @hook_impl
    def after_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Log the time of the run."""
        logger.info("%d steps in %s", self._total, describe_seconds(time.monotonic() - self._begun))
