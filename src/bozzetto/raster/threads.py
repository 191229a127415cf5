"""Compiled functions and the threads that run them.

Kernels release the interpreter lock and go to a pool of ``torch.get_num_threads()`` threads in many small tasks. This
needs no threading layer, starts no thread before the first use and follows ``torch.set_num_threads``.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import torch

# Numba notices a change of the file that holds a kernel, not of the files that the kernel takes code from. All of them
# go into the name under which it is kept.
_FOLDER = Path(__file__).parent
_KERNELS = [*sorted(_FOLDER.glob("cpu*.py")), *(_FOLDER / f"{name}.py" for name in ("lanes", "reference", "threads"))]
_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in _KERNELS)).hexdigest()[:12]

_WAVE = 8  # views in work at once, at least; bounds the memory of a film

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


def compiled(function: Callable) -> Callable:
    """``function`` compiled at its first call, without the interpreter lock; kept on disk where a folder allows it.

    Multiply-add contraction is allowed; NaN and infinity keep their meaning.
    """
    function.__qualname__ = f"{function.__name__}_{_SOURCES}"
    options = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's nor the user's cache folder can be written
        return numba.njit(**options)(function)


def run_tasks(tasks: Iterable[tuple]) -> list:
    """Results of ``(function, *arguments)`` tasks, in order. With one torch thread the caller does them all."""
    tasks = list(tasks)
    threads = torch.get_num_threads()
    if threads == 1 or len(tasks) <= 1:
        return [function(*arguments) for function, *arguments in tasks]
    futures = [_pool(threads).submit(*task) for task in tasks]
    return [future.result() for future in futures]


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)  # a forked child has no threads: it gets a pool of its own
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="bozzetto-raster")
        return _pools[key]


def spans(count: int, size: int = 8192) -> Iterator[tuple[int, int]]:
    """(begin, end) of pieces of ``size`` of ``count`` items."""
    return ((i, min(i + size, count)) for i in range(0, count, size))


def waves(views: int) -> Iterator[slice]:
    """The views in groups that are worked on together: enough to occupy the threads, few enough for the memory."""
    size = max(_WAVE, torch.get_num_threads())
    return (slice(i, i + size) for i in range(0, views, size))
