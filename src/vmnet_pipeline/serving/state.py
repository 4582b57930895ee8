"""Application state: the current gallery and worker pool, swapped atomically when a new index appears."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from vmnet_pipeline.errors import SearchIndexError
from vmnet_pipeline.serving.config import MEBIBYTE
from vmnet_pipeline.serving.covers import Covers
from vmnet_pipeline.serving.errors import write_line
from vmnet_pipeline.serving.gallery import Gallery, load_gallery, read_version
from vmnet_pipeline.serving.kept_uploads import KeptUploads
from vmnet_pipeline.serving.metrics import Metrics
from vmnet_pipeline.serving.renders import RenderQueue
from vmnet_pipeline.serving.upload_folder import UploadFolder
from vmnet_pipeline.serving.worker_pool import EmbeddingPool
from vmnet_pipeline.types import SIDES

if TYPE_CHECKING:
    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.types import CollectionPlaces

logger = logging.getLogger(__name__)

QUICK_S = 30.0  # A new index that cannot be read for so long is worth a warning: longer than it takes to write one
FIRST_START_WAIT_S, LONGEST_START_WAIT_S = 1.0, 60.0

FILE_SHARE = 0.8  # part of the time for a task that reading its file may take


class State(NamedTuple):
    """A gallery and workers with the network that made it."""

    gallery: Gallery
    pool: EmbeddingPool


class Service:
    """A served collection. `state` is read by requests and replaced as a whole, so none sees half of a change."""

    def __init__(self, places: CollectionPlaces, params: ServeParams) -> None:
        """Read the gallery.

        Raises:
            SearchIndexError: It is missing or damaged.
        """
        self.places, self.params, self.metrics = places, params, Metrics()
        gallery = load_gallery(places, params.max_map_points)
        self.state = State(gallery, self._make_pool())
        self._count_items()
        self.uploads = UploadFolder()
        max_bytes = int(params.max_kept_mb * MEBIBYTE)
        self.kept = KeptUploads(params.keep_upload_s, max_bytes)
        self.covers = Covers()
        self.renders = RenderQueue(1 + params.max_waiting, params.keep_upload_s, max_bytes)
        self._next_start, self._start_wait_s = 0.0, FIRST_START_WAIT_S
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="index-watcher", daemon=True)

    def start(self) -> None:
        """Load the networks and watch for new indexes, both in the background."""
        self._watcher.start()

    def close(self) -> None:
        """End the workers after their current tasks; remove the uploads."""
        self._ending.set()
        self.state.pool.close()
        self.uploads.remove()
        self.renders.close()
        self.covers.close()
        self.kept.close()

    @property
    def is_networked(self) -> bool:
        """Whether the index was made with the loaded network."""
        return self.state.pool.digest == self.state.gallery.checkpoint

    def find_fault(self) -> str:
        """Why some kinds of requests cannot be answered; empty if all can."""
        if not self.is_networked:
            return "the networks are not loaded"
        return self.uploads.find_fault()

    def _make_pool(self) -> EmbeddingPool:
        return EmbeddingPool(
            self.places.checkpoint,
            self.places.weights_dir,
            n_workers=self.params.n_workers,
            max_waiting=self.params.max_waiting,
            file_timeout_s=FILE_SHARE * self.params.job_timeout_s,
            metrics=self.metrics,
        )

    def _count_items(self) -> None:
        for side in SIDES:
            self.metrics.items.labels(side).set(len(self.state.gallery.sides[side].positions))

    # --- a new index

    def _watch(self) -> None:
        self._start_workers()
        seen, changed = self.state.gallery.version, time.monotonic()
        while not self._ending.wait(self.params.reload_every_s):
            self.kept.remove_old()
            self.renders.remove_old()
            self._start_workers()
            version = read_version(self.places)
            if version in ("", self.state.gallery.version):
                continue
            if version != seen:
                seen, changed = version, time.monotonic()
            is_late = time.monotonic() - changed > QUICK_S
            self._try_reload(is_late=is_late)
            if is_late:
                changed = math.inf  # said once
        self.state.pool.close()  # it may be a new one, of an index loaded while the service was closing

    def _start_workers(self) -> None:
        """Start the workers; after a failure try again, with increasing waits."""
        pool = self.state.pool
        if pool.digest or time.monotonic() < self._next_start:
            return
        pool.start()
        self._next_start = time.monotonic() + self._start_wait_s
        self._start_wait_s = min(2 * self._start_wait_s, LONGEST_START_WAIT_S)
        if pool.digest and not self.is_networked:
            logger.error("The index was not made with the checkpoint %s: uploads are refused", self.places.checkpoint)

    def _try_reload(self, *, is_late: bool) -> None:
        try:
            self.reload()
        except Exception as error:  # of any kind: the old index stays in use, and a new one is looked for
            # While a run replaces one part after the other, they do not match.
            level = logging.WARNING if is_late else logging.INFO
            logger.log(level, "The new index is not loaded yet: %s", write_line(error))
            self.metrics.reloads.labels("failed").inc()

    def reload(self) -> None:
        """Load the index on disk. Requests in progress end with the one that they began with.

        Raises:
            SearchIndexError: It cannot be read, or its parts do not match.
        """
        gallery, old = load_gallery(self.places, self.params.max_map_points), self.state
        pool = old.pool
        if gallery.checkpoint not in (old.pool.digest, old.gallery.checkpoint):
            pool = self._make_pool()
            pool.start()
            if pool.digest != gallery.checkpoint:
                pool.close()
                raise SearchIndexError("the new index was made with another checkpoint than the one on disk")
        self.state = State(gallery, pool)
        self._count_items()
        self.metrics.reloads.labels("done").inc()
        logger.info("Serving index %s", gallery.version)
        if pool is not old.pool:
            threading.Thread(target=old.pool.close, name="old-workers", daemon=True).start()
