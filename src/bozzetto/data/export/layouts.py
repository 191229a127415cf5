"""One object in one layout. What is there already is left as it is, which is how an interrupted export goes on."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...camera.lgm_folder import house_to_poses
from ...files.atomic import output_folder
from ..assets.asset_object import AssetObject
from ..assets.pose import clip_seconds
from ..assets.scene import SceneObject
from ..render import Lights
from .cameras import FOV_Y, RADIUS, l4gm_angles, orbit, view_angles
from .pictures import encoded, numpy_bytes, on_white, render_bytes, write_tar

CLIP_FPS, LONG_FPS, LONG_FRAMES = 8.0, 24.0, 24


@dataclass(frozen=True)
class Drawing:
    """How objects are drawn: picture size in pixels, the kind of light, number of views, seed, device.

    ``light`` is "default", "random" (lamps) or "surroundings" (mostly skies, rooms and streets; ``photographed`` [E, 9, 3]
    instead of this package's).
    """

    size: int
    light: str
    views: int
    seed: int
    device: torch.device
    photographed: Tensor | None = None

    def lights(self, key: str) -> Lights:
        """The light of an object: the same whenever it is drawn."""
        if self.light == "default":
            return Lights.default(1)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}:{key}".encode()))
        around = float(self.light == "surroundings")
        return Lights.random(1, generator, environment=around, photographed=self.photographed)


def object_key(source: str, number: int) -> str:
    """A name for files: no dots, slashes or dashes in it; ``number`` counts through the dataset."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', source)}_{number:06d}"


def about(obj: AssetObject, number: int) -> dict[str, Any]:
    """What is known of an object, plain values."""
    keys = ("source", "name", "group", "split", "licence", "author", "caption", "category")
    return {k: getattr(obj, k) for k in keys} | {"number": number, "fov_y": FOV_Y, "radius": RADIUS}


def write_lgm(folder: Path, obj: AssetObject, number: int, drawing: Drawing) -> int:
    """``<key>/rgb/000.png``, ``pose/000.txt`` and ``about.json``; returns how many pictures were drawn (0: it was there)."""
    key = object_key(obj.source, number)
    target = folder / key
    if (target / "about.json").is_file():
        return 0
    cameras = orbit(view_angles(drawing.views))
    pictures = render_bytes(
        SceneObject(obj, fit="rest").at_rest(), cameras, drawing.size, drawing.lights(key), drawing.device
    )
    poses = house_to_poses(cameras.camera_to_world.double())
    with output_folder(target) as work:
        (work / "rgb").mkdir()
        (work / "pose").mkdir()
        for i, (picture, pose) in enumerate(zip(pictures.numpy(), poses.tolist())):
            (work / "rgb" / f"{i:03d}.png").write_bytes(encoded(picture, "PNG", compress_level=6))
            text = "\n".join(" ".join(f"{x:.9g}" for x in row) for row in pose)
            (work / "pose" / f"{i:03d}.txt").write_text(text + "\n")
        (work / "about.json").write_text(
            json.dumps(about(obj, number), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
    return len(pictures)


def clip_times(seconds: float, fps: float, frames: int | None) -> np.ndarray:
    """Moments of a clip: all at ``fps``, or so many ``frames`` from its beginning; a shorter one starts again."""
    count = max(int(seconds * fps + 1e-6) + 1, 2) if frames is None else frames
    times = np.arange(count) / fps
    return times if frames is None or seconds <= 0 else times % max(seconds, 1e-6)


def write_l4gm(folder: Path, obj: AssetObject, number: int, drawing: Drawing) -> int:
    """Four tar files for every clip, as L4GM's data has them; returns how many pictures were drawn.

    ``<set>_clip/<id>.tar`` at 8 frames a second and ``<set>_24fps/<id>.tar`` with 24 frames, ``<set>`` being ``fixed_16`` and
    ``random``; in each ``./000/img/000.jpg`` (on white), ``mask/000.png`` and ``camera/elevation.npy``, ``rotation.npy``
    (degrees, one number a frame; positive elevation is above). The id is source-object-clip, so that its second field groups
    by object.
    """
    drawn = 0
    scene = SceneObject(obj, fit="clips")
    for i, clip in enumerate(obj.clips):
        key = object_key(obj.source, number)
        source, object_number = key.rsplit("_", 1)
        name = f"{source}-{object_number}-{i:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', clip.name) or 'clip'}.tar"
        angles = l4gm_angles(zlib.crc32(f"{drawing.seed}:{key}:{i}".encode()))
        lights = drawing.lights(key)
        for rate, fps, frames in (("clip", CLIP_FPS, None), ("24fps", LONG_FPS, LONG_FRAMES)):
            missing = {s: a for s, a in angles.items() if not (folder / f"{s}_{rate}" / name).is_file()}
            if not missing:
                continue
            posed = scene.at_times(clip, clip_times(clip_seconds(clip), fps, frames))
            for kind, around in missing.items():
                shots = [render_bytes(p, orbit(around), drawing.size, lights, drawing.device).numpy() for p in posed]
                write_tar(folder / f"{kind}_{rate}" / name, _l4gm_members(shots, around))
                drawn += len(shots) * len(shots[0])
    return drawn


def _l4gm_members(shots: list[np.ndarray], angles: tuple[list[float], list[float]]) -> Iterator[tuple[str, bytes]]:
    for view, (azimuth, elevation) in enumerate(zip(*angles)):
        for t, pictures in enumerate(shots):
            rgba = pictures[view]
            yield f"./{view:03d}/img/{t:03d}.jpg", encoded(on_white(rgba), "JPEG", quality=95, subsampling=0)
            yield f"./{view:03d}/mask/{t:03d}.png", encoded(np.ascontiguousarray(rgba[..., 3]), "PNG")
        ones = np.ones(len(shots))
        yield f"./{view:03d}/camera/elevation.npy", numpy_bytes(elevation * ones)
        yield f"./{view:03d}/camera/rotation.npy", numpy_bytes(azimuth * ones)


def shard_members(obj: AssetObject, number: int, drawing: Drawing) -> list[tuple[str, bytes]]:
    """One WebDataset sample: ``<key>.000.png`` ... (RGBA), ``<key>.cameras.npy`` and ``<key>.json``.

    cameras.npy is [V, 4, 4] float32, camera-to-world, y up, OpenGL axes; the field of view is in the JSON.
    """
    key = object_key(obj.source, number)
    cameras = orbit(view_angles(drawing.views))
    pictures = render_bytes(
        SceneObject(obj, fit="rest").at_rest(), cameras, drawing.size, drawing.lights(key), drawing.device
    )
    out = [(f"{key}.{i:03d}.png", encoded(p, "PNG", compress_level=6)) for i, p in enumerate(pictures.numpy())]
    out.append((f"{key}.cameras.npy", numpy_bytes(cameras.camera_to_world.numpy())))
    out.append((f"{key}.json", json.dumps(about(obj, number), ensure_ascii=False).encode()))
    return out
