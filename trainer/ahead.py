"""Work done in advance: while a caller uses one result, threads make the next ones. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Made = TypeVar("Made")


def ahead(
    make: Callable[[Key], Made], keys: Iterable[Key], depth: int = 1, threads: int = 1, name: str = "ahead"
) -> Generator[tuple[Key, Made], None, None]:
    """Each key with `make(key)`, in turn; up to `depth` of them are made in advance, by so many threads.

    `keys` are drawn as they are needed. What `make` raises is raised when its result is due. When the iterator ends or
    is closed, the threads have ended too.
    """
    waiting: deque[tuple[Key, Future[Made]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        for key in keys:
            waiting.append((key, pool.submit(make, key)))
            if len(waiting) > depth:
                first, made = waiting.popleft()
                yield first, made.result()
        while waiting:
            first, made = waiting.popleft()
            yield first, made.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
