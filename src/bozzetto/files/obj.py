"""Wavefront OBJ with its material file and picture: text, read by nearly everything.

OBJ puts (0, 0) of a texture at the bottom-left corner; v is flipped on the way in and out. Vertex colours follow the
position on the ``v`` line, as MeshLab, Blender and others read them.
"""

from __future__ import annotations

import itertools
import math
import re
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError, MeshError
from ..mesh import Mesh
from .atomic import output_folder
from .glb import check_mesh, srgb_to_linear, unit_normals
from .images import read_image, write_image
from .inputs import read_input
from .mesh_parts import Part, join_parts


def write_obj(mesh: Mesh, path: str | PathLike[str]) -> None:
    """Write ``NAME.obj``, and with a texture ``NAME.mtl`` and ``NAME.png`` beside it: all of them or none.

    A picture ``NAME.png`` that is not the texture of an earlier ``NAME.obj`` (the photo, say) stays; the texture is then
    ``NAME_texture.png``. In the names of the two, what the formats cannot say becomes an underscore.

    Raises:
        MeshError: the mesh has no triangles, or positions are NaN or infinite.
        OutputError: a file cannot be written.
    """
    path = Path(path)
    check_mesh(mesh, path)
    # The formats end a file name at a space, begin a comment with # and an option with a hyphen.
    name = re.sub(r"^-|[\s#\\]", "_", path.stem)
    lines = ["# bozzetto"]
    if mesh.texture is not None:
        lines += [f"mtllib {name}.mtl", "usemtl object"]
    text = ["\n".join(lines) + "\n"]
    if mesh.colors is not None and mesh.texture is None:
        text.append(_rows("v", torch.cat([mesh.vertices, torch.nan_to_num(mesh.colors).clamp(0, 1)], dim=-1)))
    else:
        text.append(_rows("v", mesh.vertices))
    if mesh.uvs is not None:
        text.append(_rows("vt", torch.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], dim=-1).nan_to_num()))
    if mesh.normals is not None:
        text.append(_rows("vn", unit_normals(mesh.normals)))
    corner = {(0, 0): "%d", (1, 0): "%d/%d", (0, 1): "%d//%d", (1, 1): "%d/%d/%d"}
    corner = corner[(int(mesh.uvs is not None), int(mesh.normals is not None))]
    repeats = corner.count("%d")
    numbers = (mesh.faces.cpu() + 1).reshape(-1).repeat_interleave(repeats).tolist()
    text.append((f"f {corner} {corner} {corner}\n" * len(mesh.faces)) % tuple(numbers))
    with output_folder(path.parent) as folder:
        if mesh.texture is not None:
            picture = _picture_name(path.parent, name)
            write_image(folder / picture, mesh.texture)
            material = [
                "# bozzetto",
                "newmtl object",
                "Ka 1 1 1",
                "Kd 1 1 1",
                "Ks 0 0 0",
                "illum 1",
                f"map_Kd {picture}",
            ]
            (folder / f"{name}.mtl").write_bytes(("\n".join(material) + "\n").encode("utf-8"))
        (folder / path.name).write_bytes("".join(text).encode("utf-8"))


def _picture_name(folder: Path, name: str) -> str:
    """The first name for the texture that is free, or that of the texture which the material file there has."""
    try:
        material = (folder / f"{name}.mtl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        material = []
    endings = itertools.chain(["", "_texture"], (f"_texture{i}" for i in itertools.count(2)))
    pictures = (f"{name}{ending}.png" for ending in endings)
    return next(p for p in pictures if not (folder / p).is_file() or f"map_Kd {p}" in material)


def _rows(word: str, values: Tensor) -> str:
    values = values.detach().cpu().double()
    row = f"{word} " + " ".join(["%.8g"] * values.shape[1]) + "\n"
    return (row * len(values)) % tuple(values.reshape(-1).tolist())


def read_obj(path: str | PathLike[str]) -> Mesh:
    """Read an OBJ file as one mesh; polygons are split into fans, several materials joined into one texture.

    Pictures are looked for beside the OBJ file. A missing material file or picture leaves the plain colour.

    Raises:
        MeshError: missing, empty or malformed file, or no faces in it.
    """
    text = read_input(path, "an .obj file", MeshError).decode("utf-8", errors="replace")
    path = Path(path)
    positions: list[list[float]] = []
    colors: list[list[float]] = []
    uvs: list[list[float]] = []
    normals: list[list[float]] = []
    groups: dict[str, list[tuple[tuple[int, int, int], ...]]] = {}
    libraries: list[str] = []
    current = ""
    for number, line in enumerate(text.replace("\\\n", " ").split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        word = words[0]
        try:
            if word == "v":
                values = [float(w) for w in words[1:]]
                positions.append(values[:3])
                if len(values) >= 6:
                    colors.append(values[3:6])
                if len(values) < 3:
                    raise ValueError("a vertex needs three numbers")
            elif word == "vt":
                uvs.append([float(words[1]), float(words[2]) if len(words) > 2 else 0.0])
            elif word == "vn":
                normals.append([float(words[1]), float(words[2]), float(words[3])])
            elif word == "f":
                corners = [_corner(w, len(positions), len(uvs), len(normals)) for w in words[1:]]
                fan = groups.setdefault(current, [])
                fan += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
            elif word == "usemtl":
                current = line.split(None, 1)[1].strip() if len(words) > 1 else ""
            elif word == "mtllib":
                libraries.append(line.split(None, 1)[1].strip())
        except (ValueError, IndexError) as problem:
            raise MeshError(f"{path}, line {number}: {problem} ({line.strip()[:60]!r})") from None
    if not groups or not any(groups.values()):
        raise MeshError(f"{path} has no faces; it is not an OBJ mesh or it is empty")
    arrays = [np.array(a, np.float64).reshape(-1, w) for a, w in ((positions, 3), (uvs, 2), (normals, 3))]
    if not all(np.isfinite(a).all() for a in arrays):
        raise MeshError(f"{path} has vertices that are NaN or infinite")
    tint = np.array(colors) if len(colors) == len(positions) else None  # [V, 3]
    materials = _materials(path, libraries)
    parts = [
        _part(corners, *arrays, tint, *materials.get(name, (torch.ones(3), None))) for name, corners in groups.items()
    ]
    try:
        return join_parts(parts)
    except MeshError as problem:
        raise MeshError(f"{path}: {problem}") from None


def _corner(word: str, vertices: int, uvs: int, normals: int) -> tuple[int, int, int]:
    """Zero-based (vertex, uv, normal) of ``1/2/3``; -1 for what is absent. Negative numbers count from the end."""
    out = []
    for text, count in zip((word.split("/") + ["", ""])[:3], (vertices, uvs, normals)):
        index = int(text) if text else 0
        index = index - 1 if index > 0 else count + index if index < 0 else -1
        if text and not 0 <= index < count:
            raise ValueError(f"a face names entry {text} of {count}")
        out.append(index)
    if out[0] < 0:
        raise ValueError("a face corner names no vertex")
    return tuple(out)


def _part(
    triangles: list,
    positions: np.ndarray,
    uvs: np.ndarray,
    normals: np.ndarray,
    colors: np.ndarray | None,
    base: Tensor,
    texture: Tensor | None,
) -> Part:
    """One vertex for every different (vertex, uv, normal) of the triangles."""
    keys = np.array(triangles, np.int64).reshape(-1, 3)
    spans = (len(positions), len(uvs) + 1, len(normals) + 1)
    single = np.ravel_multi_index(tuple(keys.T + [[0], [1], [1]]), spans)  # one number sorts faster than three
    _, first, index = np.unique(single, return_index=True, return_inverse=True)
    corners = keys[first]

    def pick(values: np.ndarray, column: int) -> Tensor | None:
        if (corners[:, column] < 0).any():
            return None
        return torch.from_numpy(values[corners[:, column]].astype(np.float32))

    coordinates = pick(uvs, 1)
    if coordinates is not None:
        coordinates = torch.stack([coordinates[:, 0], 1 - coordinates[:, 1]], dim=-1)
    directions = pick(normals, 2)
    tint = pick(colors, 0) if colors is not None else None
    return Part(
        pick(positions, 0),
        torch.from_numpy(index.reshape(-1, 3).astype(np.int64)),
        torch.nn.functional.normalize(directions, dim=-1) if directions is not None else None,
        coordinates,
        srgb_to_linear(tint) if tint is not None else None,
        base,
        texture,
    )


def _materials(path: Path, libraries: list[str]) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Material name -> (linear base colour [3], picture [H, W, 3] or None)."""
    out: dict[str, tuple[Tensor, Tensor | None]] = {}
    pictures: dict[Path, Tensor] = {}
    for library in libraries:
        try:
            text = (path.parent / library).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            continue
        name = None
        for line in text.split("\n"):
            words = line.split()
            if len(words) < 2:
                continue
            if words[0] == "newmtl":
                name = line.split(None, 1)[1].strip()
                out[name] = (torch.ones(3), None)
            elif name is not None and words[0] == "Kd":
                out[name] = (srgb_to_linear(torch.tensor([_number(w) for w in words[1:4]])), out[name][1])
            elif name is not None and words[0] == "map_Kd":
                file = path.parent / line.split(None, 1)[1].strip().replace("\\", "/")
                if file not in pictures:
                    try:
                        pictures[file] = read_image(file).rgba[..., :3].contiguous()
                    except ImageError:
                        continue
                out[name] = (out[name][0], pictures[file])
    return {name: (base if len(base) == 3 else torch.ones(3), picture) for name, (base, picture) in out.items()}


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        return 1.0
    return value if math.isfinite(value) else 1.0
