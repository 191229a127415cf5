"""Render splats: one PNG per camera of a transforms.json, COLMAP project or folder of LGM's, or a turntable.

With --cameras, the output is a folder (one PNG per frame, named like the frame's file), or a single .png if there is one
camera. Without, it is a turntable: an .mp4, .webp or .gif file, or a folder of PNGs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..numbers import positive
from ..options import add_device
from ..progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from ...camera import Cameras
    from ...gaussians import Gaussians

EXAMPLES = (
    "bozzetto render splats.ply -o turntable.mp4",
    "bozzetto render splats.ply -o pictures/ --cameras scene/transforms.json --background transparent",
)
UPS = {"y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
BACKGROUNDS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "transparent": (0.0, 0.0, 0.0)}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("splats", metavar="SPLATS", help=".ply or .splat file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE_OR_DIR", help="where to write")
    parser.add_argument(
        "--cameras", metavar="FOLDER", help="transforms.json, or what `views` and `fit` take: COLMAP's or LGM's folders"
    )
    parser.add_argument(
        "--size", type=positive, metavar="N", help="picture height in pixels (512, or the cameras' own)"
    )
    parser.add_argument("--background", choices=tuple(BACKGROUNDS), default="white", help="(white)")
    parser.add_argument("--frames", type=positive, default=120, help="of a turntable (120)")
    parser.add_argument("--up", choices=tuple(UPS), default="y", help="the splats' upward axis, for a turntable (y)")
    parser.add_argument("--elevation", type=float, default=10.0, metavar="DEGREES", help="of a turntable (10)")
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    from ...device import pick_device
    from ...gaussians import Gaussians

    gaussians = Gaussians.load(options.splats).to(pick_device(options.device))
    if options.cameras:
        _render_cameras(gaussians, options, progress)
    else:
        _render_turntable(gaussians, options, progress)


def _render_turntable(gaussians: Gaussians, options: argparse.Namespace, progress: Progress) -> None:
    from ...errors import InputError
    from ...files.film import write_film
    from ...framing import FILM_FPS, FILM_SIZE, framing_cameras, turntable

    output, size = Path(options.output), options.size or FILM_SIZE
    if options.background == "transparent":
        if output.suffix:
            raise InputError("a film has no transparency; give a folder (no suffix) for transparent pictures")
        cameras = framing_cameras(
            gaussians, [360.0 * i / options.frames for i in range(options.frames)], options.elevation
        )
        names = [f"frame_{i:05d}" for i in range(options.frames)]
        _write_pictures(gaussians, cameras, names, [(size, size)] * options.frames, options, progress)
        return
    background, up = BACKGROUNDS[options.background], UPS[options.up]
    frames = turntable(gaussians, options.frames, size, options.elevation, background, up, progress)
    write_film(output, frames, FILM_FPS)
    progress.summary([output])


def _render_cameras(gaussians: Gaussians, options: argparse.Namespace, progress: Progress) -> None:
    from ...camera.posed_folder import read_posed_folder

    posed = read_posed_folder(options.cameras, require_images=False)
    sizes = []
    for camera, size in zip(range(len(posed.cameras)), posed.sizes):
        fx, fy = posed.cameras.intrinsics[camera, :2].tolist()
        height, width = size or (512, round(512 * fy / fx))
        if options.size:
            height, width = options.size, max(round(width * options.size / height), 1)
        sizes.append((height, width))
    _write_pictures(gaussians, posed.cameras, list(posed.cameras.names), sizes, options, progress)


def _write_pictures(
    gaussians: Gaussians,
    cameras: Cameras,
    names: list[str],
    sizes: list[tuple[int, int]],
    options: argparse.Namespace,
    progress: Progress,
) -> None:
    from ...errors import InputError
    from ...files.atomic import output_folder
    from ...files.images import write_image
    from ...framing import near_plane

    output, near = Path(options.output), near_plane(gaussians)
    if output.suffix.lower() in (".png", ".webp") and len(names) == 1:
        write_image(output, _draw(gaussians, cameras, 0, sizes[0], options.background, near))
        progress.summary([output])
        return
    if output.suffix and not output.is_dir():
        raise InputError(
            f"{len(names)} pictures need a folder, and {output.name} names a file; leave out the {output.suffix}"
        )
    with output_folder(output) as work:
        for i, name in enumerate(names):
            progress("rendering", i / len(names))
            write_image(work / f"{name}.png", _draw(gaussians, cameras, i, sizes[i], options.background, near))
    progress.summary([output / f"{name}.png" for name in names])


def _draw(
    gaussians: Gaussians, cameras: Cameras, index: int, size: tuple[int, int], background: str, near: float
) -> Tensor:
    """One picture [H, W, 3], or [H, W, 4] with straight alpha for a transparent background."""
    import torch

    from ...raster import rasterize

    camera = cameras[index : index + 1]
    drawn = rasterize(gaussians, camera, size, BACKGROUNDS[background], near=near)
    rgb, alpha = drawn.rgb[0].cpu(), drawn.alpha[0, ..., None].cpu()
    if background == "transparent":
        return torch.cat([rgb / alpha.clamp_min(1e-4), alpha], dim=-1).clamp(0, 1)
    return rgb.clamp(0, 1)
