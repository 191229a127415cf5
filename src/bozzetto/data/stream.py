"""An endless, seeded stream of training objects, made by worker processes ahead of the training step that needs them.

Objects come in blocks: block b holds ``block`` new objects, and the stream visits each ``repeats`` times in shuffled order
before it goes on to block b + 1. Where that does not fill the last batch of a block, a few objects of it come once more; a
block may be smaller than a batch, which then holds objects twice. Which objects a step sees is a pure function of
(seed, step, rank, world), whatever the number of workers, so a resumed run sees what an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np

from .procedural.workers import worker_context


def _quiet_worker() -> None:
    import os
    import signal

    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop


class ObjectStream:
    """``batch(step)`` gives the objects of one step on one rank.

    Args:
        make: picklable function from an object's seed to the object.
        batch_size: objects per step on this rank.
        first_seed: objects are numbered from here, without overlap between ranks.
        block, repeats: see the module's text.
        shared: all ranks visit the same objects, each in its own order.
        workers: processes; 0 makes the objects in this process.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        first_seed: int = 0,
        block: int = 1024,
        repeats: int = 2,
        workers: int = 0,
        shared: bool = False,
    ) -> None:
        self.make, self.batch_size, self.seed, self.rank, self.world = make, batch_size, seed, rank, world
        self.first_seed, self.block, self.repeats = first_seed, block, repeats
        self.shared = shared
        self._blocks: dict[int, list[Future | Any]] = {}
        self._pool = None
        if workers > 0:
            self._pool = ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=_quiet_worker)

    def seeds(self, step: int) -> list[tuple[int, int]]:
        """(block, position in the block) of each object of ``step``."""
        per_block = -(-self.block * self.repeats // self.batch_size)  # steps, rounded up
        number, inside = divmod(step, per_block)
        visit, offset = divmod(inside * self.batch_size, self.block)
        chosen: list[int] = []
        while len(chosen) < self.batch_size:
            order = np.random.default_rng([self.seed, self.rank, number, visit]).permutation(self.block)
            chosen += order[offset : offset + self.batch_size - len(chosen)].tolist()
            visit, offset = visit + 1, 0
        return [(number, i) for i in chosen]

    def object_seed(self, number: int, position: int) -> int:
        """The generator seed of one object; ranks interleave their blocks unless they share them."""
        if self.shared:
            return self.first_seed + number * self.block + position
        return self.first_seed + (number * self.world + self.rank) * self.block + position

    def _prepare(self, number: int) -> list[Any]:
        if number not in self._blocks:
            seeds = [self.object_seed(number, i) for i in range(self.block)]
            if self._pool is None:
                self._blocks[number] = [None] * self.block
            else:
                self._blocks[number] = [self._pool.submit(self.make, s) for s in seeds]
        return self._blocks[number]

    def batch(self, step: int) -> Sequence[Any]:
        """The objects of ``step``. Steps may be asked for in any order; asking in order is fast."""
        chosen = self.seeds(step)
        number = chosen[0][0]
        for old in [b for b in self._blocks if b < number]:
            del self._blocks[old]
        entries = self._prepare(number)
        if self._pool is not None:
            self._prepare(number + 1)
        out = []
        for _, position in chosen:
            entry = entries[position]
            if entry is None:
                entry = self.make(self.object_seed(number, position))
            elif isinstance(entry, Future):
                entry = entry.result()
            entries[position] = entry
            out.append(entry)
        return out

    def close(self) -> None:
        """Stop the workers; objects under way are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
