"""Working ahead in threads, in order, with a bounded number of items in flight."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_threads: int, n_in_flight: int
) -> Iterator[_Result]:
    """Results of a function that works the processor, in the order of `items`.

    The threads have work while the caller looks at a result: nothing is yielded before `n_in_flight` are under way.

    Args:
        function: Must not raise for an item that other items shall outlive.
        n_in_flight: How many items may be under way or waiting to be taken.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= n_in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def run_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], n_ahead: int
) -> Iterator[Callable[[], _Result]]:
    """Call `function` for each item, up to `n_ahead` at the same time: an object store is slow to answer, not to work.

    Args:
        function: Is called in other threads, unless `n_ahead` is 0.
        n_ahead: 0 calls it when its result is asked for.

    Yields:
        In the order of `items`, as soon as possible, what gives the result or raises what `function` raised.
    """
    if not n_ahead:
        yield from (partial(function, item) for item in items)
        return
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(n_ahead, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                while waiting and (waiting[0].done() or len(waiting) >= 2 * n_ahead):
                    yield waiting.popleft().result
            while waiting:
                yield waiting.popleft().result
        finally:
            for future in waiting:
                future.cancel()


def read_ahead(read: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Results of `read`, in the order of `items`; while one is used, only the next one is read, in another thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        pending: Future[_Result] | None = None
        for item in items:
            following = pool.submit(read, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
