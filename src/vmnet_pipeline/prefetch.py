"""Work ahead in threads, in order, with a bounded number of items in flight."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_threads: int, n_in_flight: int
) -> Iterator[_Result]:
    """Map a CPU-bound function over `items` in threads, in order.

    The threads stay busy while the caller uses a result: up to `n_in_flight` items are being processed or wait to be
    taken. An exception ends the iteration for all items.
    """
    with closing(_submit_all(function, items, n_threads, lambda waiting: len(waiting) >= n_in_flight)) as futures:
        for future in futures:
            yield future.result()


def read_ahead(read: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Map `read` over `items` in order; while one result is used, the next one is read in another thread."""
    return map_ahead(read, items, n_threads=1, n_in_flight=2)


def run_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], n_ahead: int
) -> Iterator[Callable[[], _Result]]:
    """Call `function` for up to `n_ahead` items at once: object stores have a high latency.

    Yields:
        In the order of `items`, as soon as possible, a function that returns the result or raises its error. With
        `n_ahead` 0 it calls `function` itself.
    """
    if not n_ahead:
        yield from (partial(function, item) for item in items)
        return

    def is_due(waiting: deque[Future[_Result]]) -> bool:
        return waiting[0].done() or len(waiting) >= 2 * n_ahead

    with closing(_submit_all(function, items, n_ahead, is_due)) as futures:
        for future in futures:
            yield future.result


def _submit_all(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    n_threads: int,
    is_due: Callable[[deque[Future[_Result]]], bool],
) -> Generator[Future[_Result]]:
    """Futures in the order of `items`, which are submitted one by one; those not begun are cancelled at the end."""
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                while waiting and is_due(waiting):
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()
