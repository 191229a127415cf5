"""How good meshes of Gaussians are: 30 objects with known meshes, fitted and predicted Gaussians, several routes to a mesh.

python benchmarks/mesh_quality.py --data assets/ -o out/ [--objects 30] [--steps 2000] [--model lgm-mini] [--device cuda]

For every object: Gaussians fitted to 64 pictures of it (`fitted`: how good a mesh can be), and those that a model predicts from
four pictures (`predicted`, with --model). Each goes to a mesh by every route of --routes:

    fast   bozzetto.surface.gaussians_to_mesh
    naive  marching cubes of the summed density (128 cubed, level 1), vertex colours

and is measured as docs/evaluation.md says. Half of the objects are held out, half are from the training split (fitting does not
learn from others): in turn from every collection, in the order of their hashes. Writes quality.json and a picture of each object.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bozzetto import Gaussians, Mesh
from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.scene import SceneObject
from bozzetto.data.objects import TexturedObject
from bozzetto.errors import MeshError
from bozzetto.evaluation.geometry import mesh_arrays
from bozzetto.evaluation.intervals import bootstrap
from bozzetto.evaluation.mesh_pictures import draw_mesh
from bozzetto.evaluation.meshes import TruthSurface, score_mesh
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

COLUMNS = (
    "chamfer", "f_score_0.01", "f_score_0.02", "f_score_0.05", "normal_consistency", "watertight", "texture_psnr",
    "faces", "seconds", "failed",
)  # fmt: skip
SHOWN = [1, 6, 11]


def choose(folders: list[str], count: int) -> list[tuple[str, str, TexturedObject]]:
    """(part, name, object): held-out and curated objects, one of every collection in turn."""
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
    return [(part, name, SceneObject(data[i], fit="rest").at_rest()) for part, name, data, i in chosen]


def density_grid(gaussians: Gaussians, resolution: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Sum of opacity x exp(-d^2 / 2) on a grid [R, R, R] around the Gaussians, the mean colour there, origin and voxel."""
    g = gaussians.to("cpu").prune(0.005)
    low, high = g.means.amin(0) - 0.05, g.means.amax(0) + 0.05
    voxel = float((high - low).max()) / (resolution - 1)
    inverse = quaternion_to_matrix(g.quats) / g.scales.clamp_min(0.3 * voxel)[:, None]  # columns are axes over scales
    grid, colour = torch.zeros(resolution**3), torch.zeros(resolution**3, 3)
    window = (3 * g.scales.amax(-1) / voxel).ceil().clamp(1, 24).long()
    home = ((g.means - low) / voxel).round().long()
    for w in window.unique().tolist():
        steps = torch.arange(-w, w + 1)
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
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--size", type=int, default=256, help="of the pictures that are fitted")
    parser.add_argument("--model", help="also measure the Gaussians that this model predicts from four views")
    parser.add_argument("--routes", nargs="+", choices=list(ROUTES), default=["fast", "naive"])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    device, grid, around = torch.device(args.device), grid_cameras(), around_cameras()
    model = load_model(args.model, device) if args.model else None
    if model is not None and model.reconstruct is None:
        parser.error(f"{args.model} makes no Gaussians of four views")
    rows = []
    for number, (part, name, obj) in enumerate(choose(args.data, args.objects)):
        views = true_pictures(obj, grid, device, args.size).cpu()
        truth = true_pictures(obj, around)
        surface, goal = TruthSurface.of(obj, around), on_white(truth)
        began = time.perf_counter()
        sets = {"fitted": fit_gaussians(views, grid, steps=args.steps, device=device, max_gaussians=60_000)}
        fitted_seconds = time.perf_counter() - began
        if model is not None:
            four = [0, 4, 8, 12]
            sets["predicted"] = model.reconstruct(true_pictures(obj, grid[four], device), grid[four])
        pictures = [goal[SHOWN]]
        for kind, gaussians in sets.items():
            drawn = draw(gaussians, around.to(device)).cpu()
            pictures.append(drawn[SHOWN])
            about = {"part": part, "name": name, "gaussians": kind, "count": len(gaussians)}
            about |= {"splat_" + k: v for k, v in score_pictures(drawn, truth).means().items()}
            for route in args.routes:
                kept: list[Mesh] = []

                def make(route: str = route, gaussians: Gaussians = gaussians, kept: list = kept) -> Mesh:
                    kept.append(ROUTES[route](gaussians))
                    return kept[0]

                scores = score_mesh(make, surface, goal, around, posed=True)
                rows.append(about | {"route": route, "fit_seconds": fitted_seconds} | scores)
                print(
                    json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}), flush=True
                )
                if kept and len(mesh_arrays(kept[0])[1]):
                    pictures.append(draw_mesh(kept[0], around[SHOWN], truth.shape[1]))
        save(args.output / f"{number:02d}.png", pictures)
        (args.output / "quality.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def save(path: Path, pictures: list[torch.Tensor]) -> None:
    """One row per set: truth, splats, meshes in the order of the routes."""
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
