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

        self._label, self._total, self._done = label, total, 0
        self._started = self._logged = time.monotonic()
        self._bar = tqdm(total=total, desc=label, unit="item", disable=not sys.stderr.isatty(), leave=False)

    def advance(self, done: int = 0, total: int = 0) -> None:
        """One more item is finished; the arguments are there for callbacks that pass their own counts."""
        self._done += 1
        self._bar.update(1)
        now = time.monotonic()
        if self._bar.disable and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            rate = self._done / (now - self._started)
            left_s = (self._total - self._done) / rate
            logger.info("%s: %d of %d, %.1f/s, %.0f s left", self._label, self._done, self._total, rate, left_s)

    def count(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Pass items on, advancing after each."""
        for item in items:
            yield item
            self.advance()

    def close(self) -> None:
        """End the bar and log what was done."""
        self._bar.close()
        if self._total:
            logger.info(
                "%s: %d of %d in %.1f s", self._label, self._done, self._total, time.monotonic() - self._started
            )


@contextmanager
def track(label: str, total: int) -> Iterator[Progress]:
    """Show the progress of a step of `total` items."""
    progress = Progress(label, total)
    try:
        yield progress
    finally:
        progress.close()
