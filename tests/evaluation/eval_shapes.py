"""Simple true surfaces, Gaussians that lie on them, and tiny folders laid out as public collections."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bozzetto import Gaussians, Mesh

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data_room"))
from render_shapes import cube, sphere  # noqa: F401


def box_mesh(size=(1.0, 1.0, 1.0), centre=(0.0, 0.0, 0.0)) -> Mesh:
    """A closed box, counter-clockwise from outside."""
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    sides = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = [t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))]
    return Mesh(corners * torch.tensor(size) + torch.tensor(centre), torch.tensor(faces))


def surface_splats(points: np.ndarray, rgb: np.ndarray, size: float = 0.01) -> Gaussians:
    n = len(points)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(n, 4)
    means = torch.from_numpy(points).float()
    return Gaussians.from_rgb(
        means, torch.full((n, 3), size), quats, torch.full((n,), 0.98), torch.from_numpy(rgb).float()
    )


def png(colour=(200, 60, 30), side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), colour, np.uint8)).save(out, "PNG")
    return out.getvalue()


def ball_obj(rings: int = 12, segments: int = 12, stretch: float = 1.0) -> str:
    """A textured ball as an OBJ file, of more than 100 triangles."""
    rows = []
    for i in range(rings + 1):
        for j in range(segments + 1):
            theta, phi = np.pi * i / rings, 2 * np.pi * j / segments
            place = (np.sin(theta) * np.sin(phi), stretch * np.cos(theta), np.sin(theta) * np.cos(phi))
            rows.append("v {:.5f} {:.5f} {:.5f}".format(*place))
    uvs = [f"vt {j / segments} {1 - i / rings}" for i in range(rings + 1) for j in range(segments + 1)]
    faces = []
    for i in range(rings):
        for j in range(segments):
            a = i * (segments + 1) + j + 1
            b, c, d = a + segments + 1, a + segments + 2, a + 1
            faces += [f"f {a}/{a} {b}/{b} {c}/{c}", f"f {a}/{a} {c}/{c} {d}/{d}"]
    return "\n".join(["mtllib model.mtl", *rows, *uvs, "usemtl skin", *faces]) + "\n"


MTL = "newmtl skin\nmap_Kd texture.png\n"


def write_gso(folder: Path, count: int = 3) -> Path:
    for i in range(count):
        place = folder / f"Thing_{i}"
        for sub in ("meshes", "materials/textures"):
            (place / sub).mkdir(parents=True)
        (place / "meshes" / "model.obj").write_text(ball_obj(stretch=1 + i / 4))
        (place / "meshes" / "model.mtl").write_text(MTL)
        (place / "materials" / "textures" / "texture.png").write_bytes(png())
        (place / "metadata.pbtxt").write_text('categories {\n  first: "Toys"\n}\n')
    return folder


def write_omni(folder: Path) -> Path:
    for name, stretch in (("apple_001", 1.0), ("toy_car_002", 0.6)):
        place = folder / "raw_scans" / name.rsplit("_", 1)[0] / name / "Scan"
        place.mkdir(parents=True)
        (place / "Scan.obj").write_text(ball_obj(stretch=stretch).replace("model.mtl", "Scan.mtl"))
        (place / "Scan.mtl").write_text(MTL.replace("texture.png", "Scan.jpg"))
        (place / "Scan.jpg").write_bytes(png())
    return folder


def write_abo(folder: Path) -> Path:
    from bozzetto.files.glb import write_glb

    for i, name in enumerate(("B07AAAAAA1", "B07BBBBBB2")):
        place = folder / "3dmodels" / "original" / name[-1]
        place.mkdir(parents=True)
        obj = sphere(radius=0.5 + i, rings=8 + i)
        mesh = Mesh(torch.from_numpy(obj.vertices), torch.from_numpy(obj.faces).long())
        mesh.colors = torch.rand(len(mesh.vertices), 3, generator=torch.Generator().manual_seed(i))
        write_glb(mesh.with_normals(), place / f"{name}.glb")
    (folder / "listings" / "metadata").mkdir(parents=True)
    entry = {
        "item_id": "B07AAAAAA1",
        "3dmodel_id": "B07AAAAAA1",
        "item_name": [{"language_tag": "de_DE", "value": "Stuhl"}, {"language_tag": "en_US", "value": "Oak chair"}],
        "product_type": [{"value": "CHAIR"}],
    }
    with gzip.open(folder / "listings" / "metadata" / "listings_0.json.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    (folder / "LICENSE-CC-BY-4.0.txt").write_text("...")
    return folder
