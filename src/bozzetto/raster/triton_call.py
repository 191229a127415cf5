"""Memory of one call: what the gradient needs later, and what only making the lists needs."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from .triton_bins import CELLS
from .triton_memory import Piece, Plan, plan
from .triton_project import RECORD, Layout
from .triton_room import Room


class Kept(NamedTuple):
    """What the kernels leave for each other. Cells are numbered tile after tile; tiles and, inside, cells row by row, view
    after view; parts of cells likewise (see :mod:`.triton_blend_gradient`).

    Attributes:
        records: [S * V, N, 5] int64, see :mod:`.triton_project`.
        entries: [room] of ``Layout.index``: Gaussian indices within their scene, cell after cell, nearest first, equal depths
            by lower index.
        counts, ends: [cells] int32 and int64: how many entries each cell has and where its list ends. A list begins at a
            multiple of 32.
        transmittance: [S * V, H, W] float32. This and what follows: None without gradient.
        last: [S * V, H, W] of ``Layout.index``: the position in the cell's list of the last Gaussian that contributed to the
            pixel; anything if none did, which transmittance 1 says.
        words: int32: of 32 Gaussians of a cell's list, which contributed to each of the cell's parts, one bit each; those of
            a list begin at word start // 32 * parts.
        numbers: [cells, parts] int32: how many contributed to each part.
    """

    records: Piece
    entries: Piece
    counts: Piece
    ends: Piece
    transmittance: Piece | None = None
    last: Piece | None = None
    words: Piece | None = None
    numbers: Piece | None = None


class Work(NamedTuple):
    """What only the projection and the lists use; ``pairs`` and ``table``: see :func:`.triton_project.project`."""

    pairs: Piece
    keys: Piece
    ordered: Piece
    table: Piece
    ids: Piece
    cells: Piece


@lru_cache(256)
def kept_plan(layout: Layout, room: Room, keep: bool) -> tuple[int, Plan]:
    """Bytes and places of :class:`Kept`."""
    cells = layout.cameras * layout.tiles * CELLS
    wanted = [
        (layout.cameras * layout.n * RECORD, torch.int64),
        (room.entries, layout.index),
        (cells, torch.int32),
        (cells, torch.int64),
    ]
    if keep:
        pixels = layout.cameras * layout.height * layout.width
        wanted += [
            (pixels, torch.float32),
            (pixels, layout.index),
            (room.entries // 32 * layout.parts, torch.int32),
            (cells * layout.parts, torch.int32),
        ]
    return plan(*wanted)


@lru_cache(256)
def work_plan(layout: Layout, room: Room) -> tuple[int, Plan]:
    """Bytes and places of :class:`Work`."""
    return plan(
        *((room.pairs, torch.int64),) * 3,
        (layout.cameras * layout.groups * layout.tiles, torch.int64),
        (room.pairs, layout.index),
        (room.pairs, torch.int16),
    )
