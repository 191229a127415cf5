"""The grid as words of 32 signs, which the compiled back ends share.

A row of samples along z is packed into words: bit b of word w is set where the sample at bit 32 w + b is inside. With lids
(``closed``) the grid has one more row on each side of y, and the row of samples starts at bit 32, so that samples and words
stay aligned; the point before the first sample is bit 31. Points that do not exist have bit 0.

Crossings of 32 edges are then one exclusive-or, and a vertex's number is the count of crossings before its word plus the
count of set bits before its own: no table of edge numbers is needed, 1/16 of a byte per point stands for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .table import MOST_TRIANGLES, edge_table, triangle_table

BITS = 32
STRIDE = 16  # entries of one case in packed_triangles; the last one is the number of triangles


@dataclass(frozen=True)
class Words:
    """Sizes of the packed grid."""

    rows: int  # along y
    words: int  # of a row
    row0: int  # row of the first sample
    bit0: int  # bit of the first sample
    bits: int  # bits of a row up to the last point

    @staticmethod
    def of(shape: tuple[int, int, int], closed: bool) -> Words:
        bit0 = BITS if closed else 0
        bits = bit0 + shape[2] + int(closed)
        return Words(shape[1] + 2 * int(closed), -(-bits // BITS), int(closed), bit0, bits)


@cache
def packed_triangles(joined: bool) -> np.ndarray:
    """uint8 [256, 16]: the edges of up to five triangles, three each, as axis + 4 x + 8 y + 16 z of the start, and a count."""
    edges = [axis + 4 * x + 8 * y + 16 * z for axis, (x, y, z) in edge_table()]
    table = np.zeros((256, STRIDE), np.uint8)
    for case, triangles in enumerate(triangle_table(joined)):
        table[case, : 3 * len(triangles)] = [edges[e] for triangle in triangles for e in triangle]
        table[case, 3 * MOST_TRIANGLES] = len(triangles)
    table.setflags(write=False)
    return table
