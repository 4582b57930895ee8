"""Progress of long steps: a bar on a terminal, sparse lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

logger = logging.getLogger(__name__)

LOG_EVERY_S = 30.0

_Item = TypeVar("_Item")


class Progress:
    """Counts finished items; thread-safe enough for one writer."""

    def __init__(self, label: str, total: int, log_every_s: float = LOG_EVERY_S) -> None:
        from tqdm import tqdm

        self._log_every_s = log_every_s
        self._label, self._total, self._done, self._failed = label, total, 0, 0
        self._started = self._logged = time.monotonic()
        self._bar = tqdm(total=total, desc=label, unit="item", disable=not sys.stderr.isatty(), leave=False)

    def advance(self, done: int = 0, total: int = 0, *, failed: bool = False) -> None:
        """Count one item; `done` and `total` are ignored, for callbacks that pass their own counts."""
        if failed:
            self._failed += 1
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self.add(1)

    def add(self, n_items: int) -> None:
        """Count some items."""
        self._done += n_items
        self._bar.update(n_items)
        now = time.monotonic()
        if self._bar.disable and self._done < self._total and now - self._logged >= self._log_every_s:
            self._logged = now
            left_s = (self._total - self._done) * (now - self._started) / self._done
            logger.info("%s: %s, %s left", self._label, self._describe(now), describe_seconds(left_s))

    def close(self, *, interrupted: bool = False) -> None:
        """End the bar and log the counts."""
        self._bar.close()
        if self._done:
            logger.info("%s: %s", self._label, self._describe(time.monotonic()))
        if interrupted:
            logger.warning(
                "%s: interrupted. Everything finished is kept; run the same command to continue", self._label
            )

    def _describe(self, now: float) -> str:
        seconds = max(now - self._started, 1e-9)
        failed = f", {self._failed:,} failed" if self._failed else ""
        speed = f", {self._done / seconds:.1f} per s" if self._done > seconds else ""
        return f"{self._done:,} of {self._total:,}{failed}, {describe_seconds(seconds)}{speed}"


@contextmanager
def track(label: str, total: int, log_every_s: float = LOG_EVERY_S) -> Iterator[Progress]:
    """Show the progress of a step of `total` items; in a log at most every `log_every_s` seconds."""
    progress = Progress(label, total, log_every_s)
    is_interrupted = False
    try:
        yield progress
    except KeyboardInterrupt:
        is_interrupted = True
        raise
    finally:
        progress.close(interrupted=is_interrupted)


def track_each(label: str, items: Iterable[_Item], total: int) -> Iterator[_Item]:
    """Pass on the `total` items of a step, showing its progress."""
    with track(label, total) as progress:
        for item in items:
            yield item
            progress.advance()


def describe_seconds(seconds: float) -> str:
    """A duration for people.

    Example:
        >>> [describe_seconds(value) for value in (0.04, 59.5, 61, 7260)]
        ['0.0 s', '59.5 s', '1 min 1 s', '2 h 1 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
