"""Share the event loop fairly: parse what clients send in short turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TURN_S = 0.0003  # CPU time of one turn of parsing
REST = 3  # pause before the next turn, in lengths of the last one, left to everything else


class Pacer:
    """Turns of all connections, one at a time and in order, with a rest after each.

    Other requests wait for at most one turn and get most of the time, however many clients send at once.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_running = False

    def submit(self, turn: Callable[[], None]) -> None:
        """Run `turn`, of about `TURN_S`, after those submitted before."""
        self._waiting.append(turn)
        if not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_later(TURN_S, self._run)

    def _run(self) -> None:
        if not self._waiting:
            self._is_running = False
            return
        turn, began = self._waiting.popleft(), time.thread_time()
        try:
            turn()
        finally:
            rest_s = REST * max(TURN_S, time.thread_time() - began)
            asyncio.get_running_loop().call_later(rest_s, self._run)
