"""How much memory the lists of a call get, and whether it was enough.

How many (tile, Gaussian) pairs and list entries a call needs is known on the device only. Waiting for it would leave the
device idle, so a call takes what earlier calls of its kind needed per Gaussian and view, with some to spare, and looks at
the true numbers when all of its kernels are enqueued. If they were larger, it starts again.

A call that is recorded in a CUDA graph cannot look. Its pictures become NaN then, and its :class:`Room` stays with them, to
be checked after replays.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CapacityError

SPARE = 1.1  # of what earlier calls needed
SPARE_RECORDED = 1.5  # in a graph, unless the caller says otherwise
FADING = 0.98  # of what a kind of call is expected to need, per call that needs less
FIRST = (2.0, 8.0)  # per Gaussian and view, until something is known
KINDS = 256  # that are remembered; the one that was not used for longest goes first
MOST = (1 << 31) - 4096
COUNTERS = 256  # calls

_lock = threading.Lock()
_needed: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # of a call, per Gaussian and view
_readers: dict[int, list[tuple[torch.cuda.Event, Tensor]]] = {}  # by index of the device
_counters: dict[tuple[int, int], list[Tensor]] = {}  # by device and stream, whose later work finds them set to zero


class Room(NamedTuple):
    """What a call is prepared for.

    Attributes:
        pairs, entries: how many there is memory for.
    """

    pairs: int
    entries: int

    def holds(self, needed: tuple[int, int]) -> bool:
        """Whether a call with so many pairs and entries came out right."""
        return needed[0] <= self.pairs and needed[1] <= self.entries


@dataclass(frozen=True)
class RecordedNeed:
    """What a recorded call has room for, and where its replays write what they needed.

    Attributes:
        room: of the recording.
        needed: int64 on the device: pairs and entries of the latest replay, first of all.
        kind, rows: what :func:`learn` is told when they did not fit.
        poison: float32 on the device: 0 after a replay that fitted, otherwise NaN.
    """

    room: Room
    needed: Tensor
    kind: Hashable
    rows: int
    poison: Tensor = field(init=False)

    def __post_init__(self) -> None:
        too_many = (self.needed[0] > self.room.pairs) | (self.needed[1] > self.room.entries)
        object.__setattr__(self, "poison", torch.sqrt(-too_many.float()))  # of 0 or -1
        for made in _watching:
            made.append(self)

    def check(self) -> None:
        """Wait for the device and raise :class:`CapacityError` if the latest replay did not fit."""
        needed = tuple(self.needed.tolist()[:2])
        if not self.room.holds(needed):
            learn(self.kind, self.rows, needed)
            raise CapacityError(
                f"a replayed rasterization drew {needed[0]:,} pairs of a Gaussian and a tile and {needed[1]:,} list entries, "
                f"but was recorded with room for {self.room.pairs:,} and {self.room.entries:,}, so its pictures are NaN: "
                "record it again"
            )


_watching: list[list[RecordedNeed]] = []


@contextlib.contextmanager
def recorded_needs() -> Iterator[list[RecordedNeed]]:
    """A list that grows by every call that is recorded inside."""
    made: list[RecordedNeed] = []
    _watching.append(made)
    try:
        yield made
    finally:
        _watching.remove(made)


def expected(kind: Hashable, rows: int, spare: float = SPARE) -> Room:
    """Room for a call of this kind over ``rows`` = scenes x views x Gaussians: ``spare`` times what earlier calls needed."""
    with _lock:
        pairs, entries = _needed.get(kind, FIRST)
    return Room(_rounded(spare * pairs * rows), _rounded(spare * entries * rows))


def learn(kind: Hashable, rows: int, needed: tuple[int, int]) -> None:
    """Remember what a call needed: pairs and entries.

    Raises:
        CapacityError: for more than list positions of 32 bits can count.
    """
    if max(needed) > MOST:
        raise CapacityError(
            f"the Gaussians need {max(needed):,} list entries, more than {MOST:,}: render fewer views or scenes at once, or "
            "smaller pictures"
        )
    with _lock:
        pairs, entries = _needed.pop(kind, (0.0, 0.0))
        _needed[kind] = max(needed[0] / rows, FADING * pairs), max(needed[1] / rows, FADING * entries)
        if len(_needed) > KINDS:
            _needed.popitem(last=False)


def known(kind: Hashable) -> bool:
    """Whether a call of this kind was seen before."""
    return kind in _needed


def _rounded(count: float) -> int:
    """Up to one of 32 sizes per power of two, so that freed memory fits the next call."""
    count = min(max(int(count), 1), MOST)
    step = 1 << max(count.bit_length() - 5, 9)
    return min(-(-count // step) * step, MOST)


def counters(device: torch.device, recording: bool) -> Tensor:
    """Four zeros on the device, int64, from a stock that is made COUNTERS at a time (a memset costs as much as a kernel);
    in a recorded call they must be set to zero by every replay."""
    if recording or device.type != "cuda":
        return torch.zeros(4, dtype=torch.int64, device=device)
    index = torch._C._cuda_getDevice() if device.index is None else device.index
    key = index, torch._C._cuda_getCurrentRawStream(index)
    with _lock:
        stock = _counters.get(key)
        if not stock:
            with torch.inference_mode(False):
                _counters[key] = stock = list(torch.zeros(COUNTERS, 4, dtype=torch.int64, device=device).unbind())
        return stock.pop()


class Reading:
    """Two integers on their way from the device; the host goes on until it asks for them.

    Attributes:
        target: int64, pinned memory of the host, which the list kernel writes by itself (a copy would cost the host as much
            as two launches); None on the CPU, where ``needed`` holds them.
    """

    def __init__(self, needed: Tensor) -> None:
        self.needed, self.target = needed, None
        if not needed.is_cuda:
            return
        self.index = needed.get_device()
        with _lock:
            readers = _readers.setdefault(self.index, [])
            self.reader = readers.pop() if readers else None
        if self.reader is None:
            with torch.inference_mode(False):  # the next call may be outside of it
                self.reader = torch.cuda.Event(), torch.empty(2, dtype=torch.int64, pin_memory=True)
        self.target = self.reader[1]

    def enqueued(self) -> None:
        """To be called when everything is enqueued that computes them."""
        if self.target is not None:
            self.reader[0].record()

    def result(self) -> tuple[int, int]:
        """The integers; waits until the device has computed them (not for what was enqueued later). Call it once."""
        if self.target is None:
            return tuple(self.needed.tolist()[:2])
        self.reader[0].synchronize()
        values = tuple(self.target.tolist())
        with _lock:
            _readers[self.index].append(self.reader)
        return values
