"""Worker processes: how they start, and a bounded, ordered map over them."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing.context import BaseContext
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_CHUNK = 8
PRELOAD = ("torch", "bozzetto.data.library.store", "bozzetto.data.procedural.generate")


def worker_context() -> BaseContext:
    """How worker processes start: forked from a server that has imported PyTorch once (importing it in each of dozens of them
    takes most of a minute on a cold disk), or spawned where there is no such thing.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context


def _many(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``map`` in ``workers`` processes; results in order, at most a few chunks ahead of the reader."""
    source = iter(items)
    with ProcessPoolExecutor(workers, mp_context=worker_context()) as pool:
        waiting = deque()
        try:
            while True:
                while len(waiting) < 3 * workers and (chunk := list(islice(source, _CHUNK))):
                    waiting.append(pool.submit(_many, function, chunk))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
