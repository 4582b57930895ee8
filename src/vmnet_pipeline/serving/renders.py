"""Videos rendered with music: one job at a time, in a queue with limits, each result kept for some minutes."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import MediaError, ParameterError, StorageError
from vmnet_pipeline.serving.errors import RefusedError, describe_failure, refuse_media, write_line
from vmnet_pipeline.serving.upload_folder import UploadFolder

if TYPE_CHECKING:
    from pathlib import Path

    from vmnet_pipeline.params import MixParams
    from vmnet_pipeline.soundtrack.render import RenderReport

logger = logging.getLogger(__name__)

FAILED = "The video cannot be rendered; see the log of the service."
FALLBACK = ".mkv"
"""Holds what other formats cannot."""
RETRY_S = 20


class _CancelledError(Exception):
    """The job is no longer wanted."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to render.

    Attributes:
        video: The file with the frames.
        music: The file with the music.
        start_s: Where in the music to begin.
        settings: How to mix.
        suffix: Of the result.
        name: Of the result for those who download it, without a suffix.
        music_name: Of the music, for the time line.
        bars_s: Bar lines of the music, if they are known.
        row: Columns of the music in the library.
        markers: `beats_s` and `cuts_s`, in seconds of the video.
    """

    video: Path
    music: Path
    start_s: float
    settings: MixParams
    suffix: str
    name: str = "video"
    music_name: str = "music"
    bars_s: tuple[float, ...] = ()
    row: dict[str, Any] = field(default_factory=dict)
    markers: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class RenderJob:
    """One job; `state` is `waiting`, `running`, `done`, `failed` or `cancelled`."""

    order: Order
    held: ExitStack
    state: str = "waiting"
    progress: float = 0.0
    message: str = ""
    report: RenderReport | None = None
    path: Path | None = None
    size: int = 0
    ends: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")


class RenderQueue:
    """Jobs by a token that cannot be guessed.

    Args:
        max_jobs: Jobs that wait or run at the same time; more are refused.
        keep_s: Time after which a result is removed.
        max_bytes: Of all results together; the oldest give way, the latest stays.
    """

    def __init__(self, max_jobs: int, keep_s: float, max_bytes: int) -> None:
        self._max_jobs, self.keep_s, self._max_bytes = max_jobs, keep_s, max_bytes
        self.folder = UploadFolder()
        self._lock = threading.Lock()
        self._jobs: dict[str, RenderJob] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rendering")

    def add(self, order: Order, held: ExitStack) -> str:
        """Put a job into the queue; its token.

        Args:
            order: What to render.
            held: Closed when the job has ended, e.g. the upload that it reads.

        Raises:
            RefusedError: 429 when too many wait or run.
        """
        token, job = secrets.token_urlsafe(18), RenderJob(order, held)
        with self._lock:
            if sum(other.is_open for other in self._jobs.values()) >= self._max_jobs:
                raise RefusedError(
                    429, "busy", f"Too many videos are being rendered; try again in {RETRY_S} s.", RETRY_S
                )
            self._jobs[token] = job
        self._thread.submit(self._work, job)
        return token

    def find(self, token: str) -> RenderJob:
        """A job; 404 if it is not there any more."""
        job = self._jobs.get(token)
        if job is None:
            raise RefusedError(404, "no_such_render", "This video is not here any more; render it again.")
        return job

    def cancel(self, token: str) -> None:
        """End a job that waits or runs; 404 as `find`."""
        self.find(token).cancelled.set()

    def count_before(self, token: str) -> int:
        """Jobs that are ended before this one begins."""
        tokens = list(self._jobs)
        earlier = tokens[: tokens.index(token)] if token in tokens else []
        return sum(self._jobs[other].is_open for other in earlier if other in self._jobs)

    def remove_old(self) -> None:
        """Remove what is over its time, and the oldest results while there are too many bytes."""
        with self._lock:
            now, n_bytes = time.monotonic(), sum(job.size for job in self._jobs.values())
            newest = next(reversed(self._jobs), "")
            for token, job in list(self._jobs.items()):
                is_too_much = n_bytes > self._max_bytes and token != newest
                if not job.is_open and (job.ends < now or is_too_much):
                    del self._jobs[token]
                    n_bytes -= job.size
                    if job.path is not None:
                        job.path.unlink(missing_ok=True)

    def close(self) -> None:
        """End all jobs and remove all files."""
        for job in self._jobs.values():
            job.cancelled.set()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.folder.remove()

    def _work(self, job: RenderJob) -> None:
        try:
            with job.held:
                _check(job)
                job.state = "running"
                self._render(job)
                job.state, job.progress = "done", 1.0
        except _CancelledError:
            job.state = "cancelled"
        except Exception as error:  # of any kind: the next job has to run
            job.message = _tell(error)
            job.state = "failed"
            logger.warning("Rendering failed: %s", write_line(describe_failure(error)))
        job.ends = time.monotonic() + self.keep_s
        self.remove_old()

    def _render(self, job: RenderJob) -> None:
        with self.folder.open_file() as (_, path):  # it is removed at the end of the block, the result stays beside it
            for suffix in dict.fromkeys((job.order.suffix, FALLBACK)):
                target = path.with_suffix(suffix)
                try:
                    job.report = _render_one(job, target)
                except MediaError as error:
                    if error.reason != "unfit_format" or suffix == FALLBACK:
                        raise
                    continue
                job.path, job.size = target, target.stat().st_size
                return


def _check(job: RenderJob) -> None:
    if job.cancelled.is_set():
        raise _CancelledError


def _render_one(job: RenderJob, target: Path) -> RenderReport:
    from vmnet_pipeline.soundtrack.render import render

    def tell(share: float) -> None:
        job.progress = share
        _check(job)

    order = job.order
    try:
        return render(
            order.video,
            order.music,
            start_s=order.start_s,
            output=target,
            settings=order.settings,
            bars_s=order.bars_s,
            progress=tell,
        )
    except BaseException:
        with suppress(OSError):
            target.unlink(missing_ok=True)
        raise


def _tell(error: Exception) -> str:
    """What a client may know: no path is in it."""
    if isinstance(error, MediaError):
        return str(refuse_media(error.reason))
    if isinstance(error, ParameterError):
        return "The music ends before this place; choose an earlier one."
    if isinstance(error, StorageError):
        return "The disk of this server is full, or cannot be written; try again later."
    return FAILED
