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

    def __init__(self, label: str, total: int) -> None:
        from tqdm import tqdm

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
        if self._bar.disable and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            left_s = (self._total - self._done) * (now - self._started) / self._done
            logger.info("%s: %s left_s=%.0f", self._label, self._describe(now), left_s)

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
        counts = f"done={self._done} total={self._total} failed={self._failed}"
        return f"{counts} seconds={seconds:.1f} per_s={self._done / seconds:.1f}"


@contextmanager
def track(label: str, total: int) -> Iterator[Progress]:
    """Show the progress of a step of `total` items."""
    progress = Progress(label, total)
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
