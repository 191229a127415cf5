"""The contact sheet: of every source the best, the median and the worst object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .run import ObjectResult

_LINE = 24  # pixels of a line of text; two of them stand above a row of pictures
_GAP = 12  # pixels between the truth and what was made of each task
_RULE = (200, 200, 200)


def extremes(results: Sequence[ObjectResult], task: str, measure: str = "psnr") -> list[tuple[str, ObjectResult]]:
    """("best", result), ("median", ...), ("worst", ...) by a measure on the grid; fewer where there are fewer objects."""
    ranked = sorted((r for r in results if task in r.scores), key=lambda r: -r.scores[task]["grid"][measure])
    if len(ranked) < 3:
        return list(zip(("best", "worst"), ranked))
    return [("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])]


def source_sheet(results: Sequence[ObjectResult], tasks: Sequence[str]) -> NDArray[np.uint8] | None:
    """Three blocks, one above the other: truth, then what the model made for each task, from four new sides.

    Above each group stands what it is and its PSNR on the grid, full frame / foreground. Returns [H, W, 3] uint8, or None when
    nothing was drawn.
    """
    if not tasks:
        return None
    blocks = [_block(label, result, tasks) for label, result in extremes(results, tasks[0])]
    return np.concatenate(blocks, axis=0) if blocks else None


def _block(label: str, result: ObjectResult, tasks: Sequence[str]) -> NDArray[np.uint8]:
    """[H, W, 3] of one object: its name, then groups of four pictures side by side."""
    groups = [np.concatenate(list(row), axis=1) for row in result.pictures]  # [4, h, w, 3] -> [h, 4 w, 3]
    height, width = groups[0].shape[:2]
    sheet = Image.new("RGB", (len(groups) * (width + _GAP) - _GAP, height + 2 * _LINE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    draw.text((2, 1), f"{label}: {_ascii(result.caption or result.name)[:90]}", fill="black", font=font)
    titles = ["truth"]
    for task in tasks:
        grid = result.scores[task]["grid"]
        titles.append(f"{task}: {grid['psnr']:.1f} / {grid['foreground']:.1f} dB")
    for k, (title, picture) in enumerate(zip(titles, groups)):
        left = k * (width + _GAP)
        draw.text((left + 2, _LINE), title, fill=(90, 90, 90), font=font)
        sheet.paste(Image.fromarray(picture), (left, 2 * _LINE))
        if k:
            draw.line([(left - _GAP // 2, _LINE), (left - _GAP // 2, sheet.height)], fill=_RULE)
    draw.line([(0, sheet.height - 1), (sheet.width, sheet.height - 1)], fill=_RULE)
    return np.array(sheet)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
