"""Memory of one call as pieces of few allocations: each allocation costs the host as much as half a launch."""

from __future__ import annotations

import torch
from torch import Tensor

ALIGNMENT = 256  # bytes, between pieces


class Piece:
    """Part of an allocation, where ``place`` says: bytes before it, how many numbers, of which dtype."""

    __slots__ = ("address", "place", "whole")

    def __init__(self, whole: Tensor, address: int, place: tuple[int, int, torch.dtype]) -> None:
        self.whole, self.address, self.place = whole, address, place

    def tensor(self) -> Tensor:
        """It as a tensor of one dimension."""
        offset, count, dtype = self.place
        return self.whole.view(torch.uint8)[offset : offset + count * dtype.itemsize].view(dtype)


Plan = tuple[tuple[int, int, torch.dtype], ...]  # offset, count, dtype of every piece


def plan(*wanted: tuple[int, torch.dtype]) -> tuple[int, Plan]:
    """Bytes of an allocation for so many numbers of these dtypes, and where the pieces lie in it."""
    offset, places = 0, []
    for count, dtype in wanted:
        places.append((offset, count, dtype))
        offset += -(-count * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    return offset, tuple(places)


def pieces(whole: Tensor, places: Plan) -> list[Piece]:
    """The pieces of an allocation (of one dimension) that :func:`plan` described."""
    base = whole.data_ptr()
    return [Piece(whole, base + place[0], place) for place in places]
