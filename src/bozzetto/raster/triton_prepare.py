"""Compiling the kernels of a call that is to come, side by side instead of one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from .triton_blend import blend
from .triton_call import memory
from .triton_layout import Layout
from .triton_lists import list_cells
from .triton_project import project
from .triton_room import MOST, Room

SIZE = 8  # of the pictures that are drawn for it
FAR = 1e10


def preparations(count: int, coefficients: tuple[int, ...], device: torch.device) -> list[Callable[[], None]]:
    """Functions without arguments, each of which compiles one of the kernels for pictures without gradient; call them from
    as many threads.

    Each launches its kernel on next to no work; nothing that other calls see changes. There are two of each where records
    are lean in pictures of one view (:attr:`.triton_layout.Layout.lean`).

    Args:
        count: Gaussians of a scene in the calls to come. coefficients: spherical harmonics of each that there may be.
    """

    def call(stage: str, k: int, views: int) -> Callable[[], None]:
        def run() -> None:
            # As many Gaussians as decide about the kernels' types; those that are there are all the same.
            layout = Layout(1, views, 1, k, SIZE, SIZE, 0.01, FAR, True, 0, 0, 0, 0)
            if layout.index != replace(layout, n=count).index:
                layout = replace(layout, n=count)
            room = Room(512, 512)
            n = layout.n

            def zeros(*shape: int) -> torch.Tensor:
                return torch.zeros(shape, device=device)

            kept, work = memory(layout, room, False, device)
            for piece in (kept.records, work.pairs):
                piece.whole.zero_()
            if stage == "project":
                pose, lens = torch.eye(4, device=device).reshape(1, 4, 4), zeros(1, 4) + 1
                project(
                    zeros(n, 3), zeros(n, 4), zeros(n, 3), zeros(n), zeros(n, k, 3), pose, lens, layout, room,
                    kept.records, kept.depths, work.pairs, work.table, torch.zeros(4, dtype=torch.int64, device=device),
                )  # fmt: skip
            elif stage == "list":  # too many pairs for the room: all lists are empty
                report = torch.zeros(2, dtype=torch.int64, device=device)
                list_cells(kept, work, torch.tensor([MOST, 0, 0, 0], device=device), layout, room, report)
            else:
                blend(kept, zeros(n, k, 3), zeros(views, 3), layout, (1, views, SIZE, SIZE))

        return run

    kinds = [(k, 2) for k in dict.fromkeys(coefficients)]
    lean = [(1, 1)] if 1 in coefficients else []
    return [
        *(call("list", *kind) for kind in (*kinds[:1], *lean)),
        *(call("project", *kind) for kind in (*kinds, *lean)),
        *(call("blend", *kind) for kind in (*kinds[:1], *lean)),
    ]
