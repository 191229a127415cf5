"""Contact sheets: what is in a dataset, at a glance, drawn with the renderer that training uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...camera import Cameras
from ..objects import TexturedObject
from ..render import SceneBatch, render_objects
from .asset_object import AssetObject
from .pose import clip_seconds
from .scene import SceneObject

_LABEL = 12  # pixels of the line of text under a picture
_BATCH = 16  # objects drawn at once


def draw(
    objects: Sequence[TexturedObject], size: int, azimuths: Sequence[float] = (30.0,), elevation: float = 20.0
) -> NDArray[np.uint8]:
    """[N, V, size, size, 3]: each object from V directions, on white, LGM's camera (distance 1.5, 49.1 degrees)."""
    cameras = Cameras.orbit(list(azimuths), [elevation] * len(azimuths), radius=1.5, fov_y=49.1)
    out = []
    for i in range(0, len(objects), _BATCH):
        views = render_objects(SceneBatch.pack(objects[i : i + _BATCH]), cameras, size, outputs=("rgba",))
        rgb = views.rgba[..., :3] * views.rgba[..., 3:] + (1 - views.rgba[..., 3:])
        out.append((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    return np.concatenate(out) if out else np.zeros((0, len(azimuths), size, size, 3), np.uint8)


def tile(pictures: NDArray[np.uint8], labels: Sequence[str], columns: int) -> NDArray[np.uint8]:
    """[N, H, W, 3] with a line of text under each -> one picture, at most ``columns`` a row."""
    count, height, width = pictures.shape[:3]
    columns = min(columns, count)
    rows = -(-count // columns)
    page = Image.new("RGB", (columns * width, rows * (height + _LABEL)), "white")
    pen = ImageDraw.Draw(page)
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        x, y = i % columns * width, i // columns * (height + _LABEL)
        page.paste(Image.fromarray(picture), (x, y))
        pen.text((x + 2, y + height), label[: max(width // 6, 4)], fill="black")
    return np.array(page)


def object_sheet(
    objects: Sequence[AssetObject],
    size: int = 128,
    columns: int = 8,
    views: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> NDArray[np.uint8]:
    """One cell per object (at rest), or ``views`` cells side by side from all around; label: caption or name."""
    azimuths = [30.0] if views == 1 else [360.0 / views * k for k in range(views)]
    cells, labels = [], []
    for start in range(0, len(objects), _BATCH):
        chosen = objects[start : start + _BATCH]
        drawn = draw([SceneObject(o, "rest").at_rest() for o in chosen], size, azimuths)
        cells += [np.concatenate(list(v), axis=1) for v in drawn]  # [V, H, W, 3] -> [H, V W, 3]
        labels += [o.caption or o.name.rsplit("/", 1)[-1] for o in chosen]
        if progress is not None:
            progress("drawing", (start + len(chosen)) / len(objects))
    return tile(np.stack(cells), labels, columns)


def clip_sheet(
    pairs: Sequence[tuple[AssetObject, int]],
    size: int = 96,
    frames: int = 8,
    progress: Callable[[str, float], None] | None = None,
) -> NDArray[np.uint8]:
    """One row per (object, number of a clip): ``frames`` moments spread over it; label: caption and clip."""
    cells, labels = [], []
    for i, (obj, number) in enumerate(pairs):
        clip = obj.clips[number]
        times = np.linspace(0, clip_seconds(clip), frames)
        cells += list(draw(SceneObject(obj, "clips").at_times(clip, times), size)[:, 0])
        labels += [f"{obj.caption or obj.name}: {clip.name}" if k == 0 else f"{t:.2f} s" for k, t in enumerate(times)]
        if progress is not None:
            progress("drawing", (i + 1) / len(pairs))
    return tile(np.stack(cells), labels, frames)
