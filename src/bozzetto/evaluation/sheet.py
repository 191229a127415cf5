"""The contact sheet: of every source the best, the median and the worst object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .run import ObjectResult

_LABEL = 14  # pixels of the line of text above a row


def extremes(results: Sequence[ObjectResult], task: str, measure: str = "psnr") -> list[tuple[str, ObjectResult]]:
    """("best", result), ("median", ...), ("worst", ...) by a measure on the grid; fewer where there are fewer objects."""
    ranked = sorted((r for r in results if task in r.scores), key=lambda r: -r.scores[task]["grid"][measure])
    if len(ranked) < 3:
        return list(zip(("best", "worst"), ranked))
    return [("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])]


def source_sheet(results: Sequence[ObjectResult], tasks: Sequence[str]) -> NDArray[np.uint8] | None:
    """Three blocks, one above the other: truth, then what the model made for each task, from four new sides.

    Returns [H, W, 3] uint8, or None when nothing was drawn.
    """
    if not tasks:
        return None
    blocks = []
    for label, result in extremes(results, tasks[0]):
        numbers = ", ".join(
            f"{t}: {result.scores[t]['grid']['psnr']:.1f} / {result.scores[t]['grid']['foreground']:.1f} dB"
            for t in tasks
        )
        rows = [np.concatenate(list(row), axis=1) for row in result.pictures]  # [4, h, w, 3] -> [h, 4 w, 3]
        body = np.concatenate(rows, axis=1)
        head = Image.new("RGB", (body.shape[1], _LABEL), "white")
        name = (result.caption or result.name).encode("ascii", "replace").decode()
        ImageDraw.Draw(head).text(
            (2, 1), f"{label}: {name[:60]}   {numbers}   (truth, {', '.join(tasks)})", fill="black"
        )
        blocks.append(np.concatenate([np.array(head), body], axis=0))
    return np.concatenate(blocks, axis=0) if blocks else None
