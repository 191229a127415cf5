"""How good meshes of Gaussians are: 30 objects with known meshes, fitted and predicted Gaussians, several routes to a mesh.

python benchmarks/mesh_quality.py --data assets/ -o out/ [--objects 30] [--model lgm-mini] [--device cuda] [--part 0/8]
python benchmarks/mesh_quality.py --data assets/ --pack objects.npz      # the chosen objects alone, for another machine
python benchmarks/mesh_quality.py --table out/

For every object: Gaussians fitted to 64 pictures of it (`fitted`: how good a mesh can be), and those that a model predicts from
four pictures (`predicted`, with --model). Each goes to a mesh by every route of --routes:

    fast   bozzetto.surface.gaussians_to_mesh
    nerf   the same with method="nerf"
    naive  marching cubes of the summed density (128 cubed, level 1), vertex colours

and is measured as docs/evaluation.md says, in the object's own frame. Half of the objects are held out, half are from the
training split (fitting does not learn from others): in turn from every collection, in the order of their hashes.

A measured mesh is a line in out/rows-*.jsonl, and what has a line is not measured again, so that a run can be broken off, go on
with another route, or be spread over processes (--part). Gaussians are kept in out/splats, pictures of the object and its meshes
in out/pictures. Seconds are those of a machine on which nothing else runs only if nothing else ran.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from bozzetto import Cameras, Gaussians, Mesh
from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.scene import SceneObject
from bozzetto.data.objects import TexturedObject
from bozzetto.data.render import SceneBatch, render_objects
from bozzetto.errors import BozzettoError, InputError, MeshError
from bozzetto.evaluation.distances import compare_surfaces
from bozzetto.evaluation.geometry import is_watertight, mesh_arrays, sample_surface
from bozzetto.evaluation.intervals import bootstrap
from bozzetto.evaluation.mesh_pictures import mesh_object, unlit
from bozzetto.evaluation.meshes import TruthSurface
from bozzetto.evaluation.models import load_model
from bozzetto.evaluation.objects import dataset_samples
from bozzetto.evaluation.pictures import on_white, score_pictures
from bozzetto.evaluation.protocol import WITHOUT, around_cameras, grid_cameras, order_of
from bozzetto.evaluation.run import draw, true_pictures
from bozzetto.fitting import fit_gaussians
from bozzetto.gaussians import quaternion_to_matrix
from bozzetto.surface import gaussians_to_mesh
from bozzetto.surface.marching import marching_cubes
from bozzetto.surface.simplify import decimate
from bozzetto.surface.unwrap import unwrap
from bozzetto.training.losses import psnr

COLUMNS = (
    "chamfer", "f_score_0.01", "f_score_0.02", "f_score_0.05", "normal_consistency", "watertight", "texture_psnr",
    "faces", "seconds", "failed",
)  # fmt: skip
SHOWN = [1, 6, 11]


def choose(folders: list[str], count: int) -> list[TexturedObject]:
    """Held-out and curated objects, one of every collection in turn; their ``source`` is the part that they stand for."""
    queues: list[list[tuple[str, str, Dataset, int]]] = []
    for folder in folders:
        data = Dataset(folder)
        for sample in dataset_samples(folder, count):
            queues.append([(f"held out: {sample.name}", data.record(i)["name"], data, i) for i in sample._numbers])
        by_source: dict[str, list[int]] = {}
        for i in data.select("train", without=WITHOUT):
            if data.record(i)["source_triangles"] >= 300:
                by_source.setdefault(data.record(i)["source"], []).append(i)
        for source, numbers in by_source.items():
            numbers.sort(key=lambda i: order_of(source, data.record(i)["name"]))
            queues.append([(f"curated: {source}", data.record(i)["name"], data, i) for i in numbers[:count]])
    held = [q for q in queues if q[0][0].startswith("held")]
    sides = [held, [q for q in queues if q not in held]]
    chosen: list[tuple[str, str, Dataset, int]] = []
    for side, share in zip(sides, (count - count // 2, count // 2)):
        picked = [q[k] for k in range(count) for q in side if k < len(q)]
        chosen += picked[:share]
    return [
        dataclasses.replace(SceneObject(data[i], fit="rest").at_rest(), name=name, source=part)
        for part, name, data, i in chosen
    ]


ARRAYS = ("vertices", "faces", "uvs", "normals", "material", "base_colors")


def pack(path: Path, objects: list[TexturedObject]) -> None:
    """Write objects into one compressed file."""
    arrays = {"about": np.array(json.dumps([(o.name, o.source, len(o.textures)) for o in objects]))}
    for k, obj in enumerate(objects):
        arrays |= {f"{k}.{name}": getattr(obj, name) for name in ARRAYS}
        arrays |= {f"{k}.texture{i}": texture for i, texture in enumerate(obj.textures)}
    np.savez_compressed(path, **arrays)


def unpack(path: Path) -> list[TexturedObject]:
    """The objects of :func:`pack`."""
    with np.load(path) as file:
        return [
            TexturedObject(
                **{n: file[f"{k}.{n}"] for n in ARRAYS},
                textures=[file[f"{k}.texture{i}"] for i in range(textures)],
                name=name,
                source=source,
            )
            for k, (name, source, textures) in enumerate(json.loads(str(file["about"])))
        ]


def density_grid(gaussians: Gaussians, resolution: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Sum of opacity x exp(-d^2 / 2) on a grid [R, R, R] around the Gaussians, the mean colour there, origin and voxel (CPU)."""
    g = gaussians.prune(0.005)
    device = g.device
    low, high = g.means.amin(0) - 0.05, g.means.amax(0) + 0.05
    voxel = float((high - low).max()) / (resolution - 1)
    inverse = quaternion_to_matrix(g.quats) / g.scales.clamp_min(0.3 * voxel)[:, None]  # columns are axes over scales
    grid, colour = torch.zeros(resolution**3, device=device), torch.zeros(resolution**3, 3, device=device)
    window = (3 * g.scales.amax(-1) / voxel).ceil().clamp(1, 24).long()
    home = ((g.means - low) / voxel).round().long()
    for w in window.unique().tolist():
        steps = torch.arange(-w, w + 1, device=device)
        around = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
        for part in (window == w).nonzero()[:, 0].split(max(1, 2_000_000 // len(around))):
            cell = home[part, None] + around  # [n, K, 3]
            offset = cell * voxel + low - g.means[part, None]
            local = torch.einsum("nkc,nca->nka", offset, inverse[part])
            value = g.opacities[part, None] * torch.exp(-0.5 * (local * local).sum(-1))
            inside = ((cell >= 0) & (cell < resolution)).all(-1)
            index = ((cell[..., 0] * resolution + cell[..., 1]) * resolution + cell[..., 2])[inside]
            grid.index_add_(0, index, value[inside])
            rgb = g.rgb[part, None].clamp(0, 1) * value[..., None]
            colour.index_add_(0, index, rgb[inside])
    shape = (resolution,) * 3
    grid, colour, low = grid.cpu(), colour.cpu(), low.cpu()
    return grid.view(shape), (colour / grid.clamp_min(1e-6)[:, None]).view(*shape, 3), low, voxel


def naive_mesh(gaussians: Gaussians, resolution: int = 128, level: float = 1.0, max_faces: int = 50_000) -> Mesh:
    """Marching cubes of the summed density, colours of the nearest cell."""
    grid, colour, low, voxel = density_grid(gaussians, resolution)
    vertices, faces = marching_cubes(level - grid, low, voxel)
    vertices, faces = decimate(vertices, faces, max_faces)
    if len(faces) == 0:
        raise MeshError("nothing is left")
    at = ((vertices - low) / voxel).round().long().clamp(0, resolution - 1)
    return Mesh(vertices, faces, colors=colour[at[:, 0], at[:, 1], at[:, 2]]).with_normals()


ROUTES = {"fast": gaussians_to_mesh, "naive": naive_mesh, "nerf": partial(gaussians_to_mesh, method="nerf")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", help="dataset folders, or one file of --pack")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--size", type=int, default=256, help="of the pictures that are fitted")
    parser.add_argument("--model", help="also measure the Gaussians that this model predicts from four views")
    parser.add_argument("--kinds", nargs="+", choices=["fitted", "predicted"], default=["fitted", "predicted"])
    parser.add_argument("--routes", nargs="+", choices=list(ROUTES), default=["fast", "naive"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", default="0/1", help="K/N: every Nth object from the Kth on")
    parser.add_argument("--processes", type=int, default=1, help="the parts, each in a process of its own")
    parser.add_argument("--gpus", type=int, default=1, help="over which the processes are spread")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write the chosen objects and stop")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FOLDER", help="show what was measured and stop")
    args = parser.parse_args()
    if args.table:
        print(table([row for folder in args.table for row in read_rows(folder)]))
        return
    if not args.data or not (args.output or args.pack):
        parser.error("give --data and -o")
    packed = args.data[0].endswith(".npz")
    objects = unpack(Path(args.data[0]))[: args.objects] if packed else choose(args.data, args.objects)
    if args.pack:
        pack(args.pack, objects)
        return
    for folder in ("splats", "pictures"):
        (args.output / folder).mkdir(parents=True, exist_ok=True)
    if args.processes == 1:
        run(objects, args, *map(int, args.part.split("/")))
        return
    # Compiled loops of the CPU are compiled once.
    TruthSurface.of(objects[0], around_cameras())
    unwrap(torch.from_numpy(objects[0].vertices), torch.from_numpy(objects[0].faces).long(), 256)
    children = []
    for k in range(args.processes):  # after the imports, before any use of CUDA
        children.append(os.fork())
        if children[-1] == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(k % args.gpus)
            try:
                run(objects, args, k, args.processes)
            except Exception:
                traceback.print_exc()
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)


def run(objects: list[TexturedObject], args: argparse.Namespace, first: int, step: int) -> None:
    """Measure every ``step``-th object from ``first`` on."""
    device = torch.device(args.device)
    kinds = [k for k in args.kinds if k == "fitted" or args.model]
    for kind in kinds:  # first all Gaussians: they are what a run that is broken off would miss most
        for number in range(first, len(objects), step):
            splats_of(number, kind, objects[number], args, device)
    done = {(r["number"], r["gaussians"], r["route"]) for r in read_rows(args.output)}
    with open(args.output / f"rows-{first}.jsonl", "a") as file:
        slow = [
            [r for r in args.routes if r != "nerf"],
            [r for r in args.routes if r == "nerf"],
        ]  # last what takes longest
        for routes, number in product(slow, range(first, len(objects), step)):
            todo = [(k, r) for k in kinds for r in routes if (number, k, r) not in done]
            if todo:
                for row in measure(number, objects[number], todo, args, device):
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    short = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                    print(json.dumps(short), flush=True)


def measure(
    number: int, obj: TexturedObject, todo: list[tuple[str, str]], args, device: torch.device
) -> Iterator[dict]:
    """One row for each (kind of Gaussians, route) of ``todo``."""
    around = around_cameras()
    truth = true_pictures(obj, around, device).cpu()
    surface, goal = TruthSurface.of(obj, around), on_white(truth)
    for kind in dict.fromkeys(kind for kind, _ in todo):
        gaussians, seconds = splats_of(number, kind, obj, args, device)
        drawn = draw(gaussians, around.to(device)).cpu()
        about = {"number": number, "part": obj.source, "name": obj.name, "gaussians": kind, "count": len(gaussians)}
        about |= {"splat_" + k: v for k, v in score_pictures(drawn, truth).means().items()} | {"splat_seconds": seconds}
        save(args.output / "pictures" / f"{number:02d}-{kind}-splats.png", [goal[SHOWN], drawn[SHOWN]])
        for route in [route for own, route in todo if own == kind]:
            scores, picture = score(partial(ROUTES[route], gaussians), surface, goal, around, device)
            if picture is not None:
                save(args.output / "pictures" / f"{number:02d}-{kind}-{route}.png", [picture[SHOWN]])
            yield about | {"route": route} | scores


def score(
    make: Callable[[], Mesh], truth: TruthSurface, pictures: torch.Tensor, cameras: Cameras, device: torch.device
) -> tuple[dict[str, float], torch.Tensor | None]:
    """What ``evaluation.meshes.score_mesh`` measures in the object's frame, drawn on ``device``; pictures [V, S, S, 3], too."""
    began = time.perf_counter()
    try:
        mesh = make()
        seconds = time.perf_counter() - began
        vertices, faces = mesh_arrays(mesh)
        made = sample_surface(vertices, faces, seed=1)
    except BozzettoError as error:
        return {"failed": 1.0, "error": str(error)}, None
    out = {"failed": 0.0, "seconds": seconds, "faces": float(len(faces))}
    out |= {"watertight": float(is_watertight(vertices, faces))}
    out |= compare_surfaces(made, truth.points, truth.unit, truth.seen).flat()
    scene = SceneBatch.pack([mesh_object(mesh)]).to(device)
    drawn = render_objects(scene, cameras.to(device), pictures.shape[-2], unlit(1).to(device), outputs=("rgba",))
    shown = on_white(drawn.rgba[0].cpu())
    return out | {"texture_psnr": float(psnr(shown, pictures, dims=(-3, -2, -1)).mean())}, shown


@cache
def network(name: str, device: torch.device) -> Callable[[torch.Tensor, Cameras], Gaussians]:
    """(four posed pictures, cameras) -> Gaussians."""
    model = load_model(name, device)
    if model.reconstruct is None:
        raise InputError(f"{name} makes no Gaussians of four views")
    return model.reconstruct


def splats_of(number: int, kind: str, obj: TexturedObject, args, device: torch.device) -> tuple[Gaussians, float]:
    """The object's Gaussians and how long they took, from the output folder if they are there."""
    path = args.output / "splats" / f"{number:02d}-{kind}.ply"
    if path.exists():
        return Gaussians.load(path).to(device), float(path.with_suffix(".txt").read_text())
    grid = grid_cameras()
    began = time.perf_counter()
    if kind == "fitted":
        views = true_pictures(obj, grid, device, args.size).cpu()
        gaussians = fit_gaussians(views, grid, steps=args.steps, device=device, max_gaussians=60_000)
    else:
        four = grid[[0, 4, 8, 12]]
        gaussians = network(args.model, device)(true_pictures(obj, four, device), four)
    seconds = time.perf_counter() - began
    path.with_suffix(".txt").write_text(str(seconds))
    gaussians.save(path)
    return gaussians, seconds


def read_rows(folder: Path) -> list[dict]:
    """What was measured, without lines that were broken off."""
    rows = []
    for path in sorted(folder.glob("rows-*.jsonl")):
        for line in path.read_text().splitlines():
            if line.endswith("}"):
                rows.append(json.loads(line))
    return rows


def save(path: Path, pictures: list[torch.Tensor]) -> None:
    """One row per set of pictures [V, S, S, 3]."""
    from bozzetto.files.images import write_image

    write_image(path, torch.cat([torch.cat(list(p), dim=1) for p in pictures], dim=0))


def table(rows: list[dict]) -> str:
    """Means of every measure by kind of Gaussians and route, as Markdown."""
    lines = [
        "| Gaussians | route | objects | splat PSNR | " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * (4 + len(COLUMNS)),
    ]
    for kind, route in dict.fromkeys((r["gaussians"], r["route"]) for r in rows):
        some = [r for r in rows if (r["gaussians"], r["route"]) == (kind, route)]
        cells = [kind, route, str(len(some)), f"{np.mean([r['splat_psnr'] for r in some]):.2f}"]
        for column in COLUMNS:
            mean = bootstrap([r[column] for r in some if column in r]).mean
            cells.append(f"{mean:,.0f}" if column == "faces" else f"{mean:.4g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
