"""Memory of one call: what the gradient needs later, and what only making the lists needs.

With C pictures of P pixels in all, N Gaussians in each, room for T pairs of tiles and E list entries, bytes are: records
40 C N (lean 28 C N); entries 2 E, or 4 E for more than 65,536 Gaussians; 12 a cell; for the gradient P + 2 P (4 P) of pixels,
E / 8 to E / 2 of words and 8 to 16 a cell; work 24 T and a table of 8 for every tile and 512 Gaussians. Pictures take 20 P, of
which 4 P are depth; moments 36 C N (40 C N if depth has a gradient); gradients 56 N of a scene without SH. They live:

1. while lists are made: records, lists, what the gradient needs, work (the table in place of what is written later);
2. while pictures are drawn: the same with pictures instead of work;
3. in the backward pass, at first: records, lists, what the gradient needs, moments, and pictures that the caller holds;
4. at its end: moments, gradients and those pictures.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from .triton_bins import CELLS
from .triton_layout import Layout
from .triton_memory import Piece, Plan, pieces, plan
from .triton_room import Room


class Kept(NamedTuple):
    """What the kernels leave for each other. Cells are numbered tile after tile; tiles and, inside, cells row by row, view
    after view; parts of cells likewise (see :mod:`.triton_blend_gradient`).

    Attributes:
        records: [S * V, N, 5 or 3] int64, see :mod:`.triton_project`.
        depths: [S * V, N] float32, where records are lean; otherwise empty.
        entries: [room] of ``Layout.index``: Gaussian indices within their scene, cell after cell, nearest first, equal depths
            by lower index.
        counts, ends: [cells] int32 and int64: how many entries each cell has and where its list ends. A list begins at a
            multiple of 32.
        rest: [S * V, H, W] int8, times 2^-32: what rounding took from the transmittance in alpha, its difference from 1
            (alpha itself is a picture, so this byte takes the place of four). This and what follows: None without gradient.
        last: [S * V, H, W] of ``Layout.index``: the position in the cell's list of the last Gaussian that contributed to the
            pixel; anything if none did, which alpha 0 and rest 0 say.
        words: int32: of 32 Gaussians of a cell's list, which contributed to each of the cell's parts, one bit each; those of
            a list begin at word start // 32 * parts.
        numbers: [cells, parts] int32: how many contributed to each part.
    """

    records: Piece
    depths: Piece
    entries: Piece
    counts: Piece
    ends: Piece
    rest: Piece | None = None
    last: Piece | None = None
    words: Piece | None = None
    numbers: Piece | None = None


class Work(NamedTuple):
    """What only the projection and the lists use; ``pairs`` and ``table``: see :func:`.triton_project.project`. ``keys``: the
    pairs tile by tile; when they are sorted, a tile's indices and bits of cells take their place. ``ordered``: in order."""

    pairs: Piece
    keys: Piece
    ordered: Piece
    table: Piece


def kept_plan(layout: Layout, room: Room, keep: bool) -> tuple[int, Plan]:
    """Bytes and places of :class:`Kept`."""
    cells = layout.cameras * layout.tiles * CELLS
    rows = layout.cameras * layout.n
    wanted = [
        (rows * layout.record, torch.int64),
        (rows if layout.lean else 0, torch.float32),
        (room.entries, layout.index),
        (cells, torch.int32),
        (cells, torch.int64),
    ]
    if keep:
        pixels = layout.cameras * layout.height * layout.width
        wanted += [
            (pixels, torch.int8),
            (pixels, layout.index),
            (room.entries // 32 * layout.parts, torch.int32),
            (cells * layout.parts, torch.int32),
        ]
    return plan(*wanted)


def work_plan(layout: Layout, room: Room) -> tuple[int, Plan]:
    """Bytes and places of :class:`Work`, all but the table."""
    return plan(*((room.pairs, torch.int64),) * 3)


def table_plan(layout: Layout, room: Room, keep: bool) -> tuple[int, Plan]:
    """Bytes and place of :attr:`Work.table`; no bytes if it fits where :class:`Kept` keeps what compositing only writes."""
    size, places = kept_plan(layout, room, keep)
    count = layout.cameras * layout.groups * layout.tiles
    begin = places[Kept._fields.index("rest")][0] if keep else size
    if begin + 8 * count <= size:
        return 0, ((begin, count, torch.int64),)
    return plan((count, torch.int64))


@lru_cache(256)
def plans(layout: Layout, room: Room, keep: bool) -> tuple[int, Plan, int, Plan, Plan]:
    """Bytes and places of :class:`Kept`; bytes of all else, places of :class:`Work` but for the table; the table's place there,
    or nothing if it lies in the former."""
    size, places = kept_plan(layout, room, keep)
    work_size, work_places = work_plan(layout, room)
    table_size, (table,) = table_plan(layout, room, keep)
    if table_size:
        return size, places, work_size + table_size, (*work_places, (work_size, *table[1:])), ()
    return size, places, work_size, work_places, (table,)


def memory(layout: Layout, room: Room, keep: bool, device: torch.device) -> tuple[Kept, Work]:
    """Memory for a call, in two allocations; what the gradient needs is there if ``keep``."""
    size, places, work_size, work_places, table = plans(layout, room, keep)
    whole = torch.empty(size, dtype=torch.uint8, device=device)
    work = pieces(torch.empty(work_size, dtype=torch.uint8, device=device), work_places)
    return Kept(*pieces(whole, places)), Work(*work, *pieces(whole, table))
