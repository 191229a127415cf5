"""Read asset collections and print what is in them; with --sheet, draw contact sheets too.

    python tools/survey_sources.py FOLDER [--source NAME ...] [--sheet FOLDER] [--only TEXT] [--clips]

FOLDER holds the unpacked packages (``dpkg-deb -x PACKAGE.deb FOLDER/PACKAGE``).
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from pathlib import Path

import numpy as np

from bozzetto.data.assets.source_object import Clip, SourceObject
from bozzetto.data.sources.registry import SOURCES, find_source


def posed(obj: SourceObject, clip: Clip | None, frame: int) -> list[np.ndarray]:
    """Vertices [V, 3] of every part at ``frame`` of ``clip``."""
    if clip is None:
        return [part.vertices for part in obj.parts]
    if clip.positions is not None:
        return [p[frame] for p in clip.positions]
    out = []
    for part in obj.parts:
        if part.joints is None:
            out.append(part.vertices)
            continue
        blend = np.einsum("vk,vkij->vij", part.weights, clip.matrices[frame][part.joints])  # [V, 4, 4]
        out.append(np.einsum("vij,vj->vi", blend[:, :3, :3], part.vertices) + blend[:, :3, 3])
    return out


def textured(obj: SourceObject, points: list[np.ndarray], box: tuple[np.ndarray, float]):
    """``obj`` with vertices ``points`` as the renderer takes it; ``box`` is what becomes centre and radius."""
    from PIL import Image

    from bozzetto.data.objects import TexturedObject

    def power_of_two(texture: np.ndarray, alpha: str) -> np.ndarray:
        size = [min(512, 1 << max(0, round(np.log2(s)))) for s in texture.shape[1::-1]]
        texture = np.array(Image.fromarray(texture).resize(size))
        if alpha == "opaque":
            texture[..., 3] = 255
        return texture

    faces, uvs, material, textures, colours, start = [], [], [], [], [], 0
    for index, (part, vertices) in enumerate(zip(obj.parts, points)):
        faces.append(part.faces + start)
        start += len(vertices)
        shown = part.uvs is not None and part.texture is not None
        uvs.append(part.uvs[part.faces] if shown else np.zeros((len(part.faces), 3, 2), np.float32))
        material.append(np.full(len(part.faces), index, np.int32))
        white = np.full((1, 1, 4), 255, np.uint8)
        textures.append(power_of_two(obj.textures[part.texture], part.alpha) if shown else white)
        colours.append(part.colour)
    count = sum(map(len, faces))
    return TexturedObject(
        ((np.concatenate(points) - box[0]) * (0.6 / box[1])).astype(np.float32),
        np.concatenate(faces),
        np.concatenate(uvs),
        np.zeros((count, 3, 3), np.float32),
        np.concatenate(material),
        textures,
        np.array(colours, np.float32),
    )


def draw(obj: SourceObject, clip: Clip | None = None, frames=(0,), azimuth=30.0, size=160) -> list[np.ndarray]:
    """Pictures [H, W, 3] of ``obj``, one for each frame."""
    import torch

    from bozzetto.camera import Cameras
    from bozzetto.data.render import SceneBatch, render_objects

    stages = [posed(obj, clip, f) for f in frames]
    everything = np.concatenate([p for stage in stages for p in stage])
    low, high = everything.min(0), everything.max(0)
    box = ((low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-6))
    cameras = Cameras.orbit([azimuth], elevation=15.0)
    scene = SceneBatch.pack([textured(obj, stage, box) for stage in stages])
    rgba = render_objects(scene, cameras, size, outputs=("rgba",), dtype=torch.float32, cull_backfaces=CULL).rgba
    rgb = rgba[:, 0, ..., :3] * rgba[:, 0, ..., 3:] + 1 - rgba[:, 0, ..., 3:]
    return list((rgb.clamp(0, 1) * 255).byte().numpy())


CULL = False


def sheet(pictures: list[np.ndarray], labels: list[str], path: Path, columns: int = 8) -> None:
    """Pictures in rows with their labels, as one PNG."""
    from PIL import Image, ImageDraw

    side = pictures[0].shape[0]
    page = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * (side + 12)), "white")
    pen = ImageDraw.Draw(page)
    for i, (picture, label) in enumerate(zip(pictures, labels)):
        x, y = i % columns * side, i // columns * (side + 12)
        page.paste(Image.fromarray(picture), (x, y))
        pen.text((x + 2, y + side), label[-26:], fill="black")
    page.save(path)


def survey(name: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Read one collection and print its numbers."""
    start = time.perf_counter()
    triangles, sides, groups, rng = [], [], set(), np.random.default_rng(arguments.seed)
    kinds, licences, clip_names, count = Counter(), Counter(), Counter(), Counter()
    kept: list[SourceObject] = []
    seen = 0
    for obj in find_source(name).read(folder):
        if arguments.only and arguments.only not in obj.name:
            continue
        triangles.append(obj.triangles)
        groups.add(obj.group)
        kinds[obj.category] += 1
        licences[obj.licence] += 1
        shown = [obj.textures[p.texture] for p in obj.parts if p.texture is not None and p.uvs is not None]
        count["textured"] += bool(shown)
        count["captioned"] += bool(obj.caption)
        count["with author"] += bool(obj.author)
        count["with clips"] += bool(obj.clips)
        count["clips"] += len(obj.clips)
        count["100 triangles or more"] += obj.triangles >= 100
        clip_names.update(c.name for c in obj.clips)
        sides += [max(t.shape[:2]) for t in shown]
        if arguments.sheet and (not arguments.clips or obj.clips):
            # reservoir sampling: every object has the same chance without keeping all
            seen += 1
            place = len(kept) if len(kept) < arguments.number else int(rng.integers(seen))
            if place < arguments.number:
                kept[place : place + 1] = [obj]
        if arguments.limit and len(triangles) >= arguments.limit:
            break
    print(f"{name}: {len(triangles)} objects in {len(groups)} groups, {time.perf_counter() - start:.0f} s")
    if not triangles:
        return
    print("  " + ", ".join(f"{v} {k}" for k, v in count.items()))
    print("  triangles p5/50/95:", *np.percentile(triangles, [5, 50, 95]).round().astype(int))
    if sides:
        print("  texture side p5/50/95:", *np.percentile(sides, [5, 50, 95]).astype(int))
    print("  licences:", dict(licences.most_common(12)))
    print("  categories:", dict(kinds.most_common(16)))
    if clip_names:
        print("  clips:", dict(clip_names.most_common(20)))
    if not arguments.sheet:
        return
    arguments.sheet.mkdir(parents=True, exist_ok=True)
    pictures, labels = [], []
    for obj in kept:
        if arguments.clips:
            clip = obj.clips[int(rng.integers(len(obj.clips)))]
            length = len(clip.matrices if clip.matrices is not None else clip.positions[0])
            pictures += draw(obj, clip, np.linspace(0, length - 1, 8).astype(int), arguments.azimuth)
            labels += [f"{obj.name} {clip.name}"] * 8
        else:
            pictures += draw(obj, azimuth=arguments.azimuth)
            labels.append(obj.name)
    sheet(pictures, labels, arguments.sheet / f"{name}{'_clips' if arguments.clips else ''}.png")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", action="append", choices=list(SOURCES))
    parser.add_argument("--sheet", type=Path, help="draw a random selection into this folder")
    parser.add_argument("--clips", action="store_true", help="sheets of animations, eight frames a row")
    parser.add_argument("--number", type=int, default=48, help="objects on a sheet")
    parser.add_argument("--limit", type=int, default=0, help="stop after so many objects")
    parser.add_argument("--only", default="", help="only objects whose name holds this")
    parser.add_argument("--azimuth", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cull", action="store_true", help="leave out faces seen from behind: shows wrong winding")
    parser.add_argument("--verbose", action="store_true", help="also say what was left out on purpose")
    arguments = parser.parse_args()
    global CULL
    CULL = arguments.cull
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="  %(message)s")
    for name in arguments.source or SOURCES:
        survey(name, arguments.folder, arguments)


if __name__ == "__main__":
    main()
