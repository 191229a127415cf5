"""Gaussians or a mesh → one ``viewer.html`` that opens from disk and needs no network.

Browsers forbid a page opened from disk to load modules, workers or data files, so everything is inside the page: our
own WebGL 2 viewer (``viewer_assets``: about 45 kB, no third-party code) and the splats as base64. A content security
policy in the page forbids it any connection.

The splats are stored in 34 bytes each (plus 3 (degree + 1)^2 - 3 for spherical harmonics): centres as float32,
rotations as 4 x int16, logarithms of the scales and colours as uint16 over their range, opacities as uint16, harmonics
beyond degree 0 as int8. 65,536 splats of degree 0 make a page of 3.0 MB.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from ..errors import MeshError, OutputError
from ..gaussians import Gaussians
from ..mesh import Mesh
from .atomic import atomic_write_text
from .images import to_uint8

FOV_Y = 49.1  # degrees, the camera that LGM's views have
_SCRIPTS = ("splats.js", "mesh.js", "timeline.js", "controls.js", "main.js")


def write_viewer(
    path: str | PathLike[str],
    gaussians: Gaussians | None = None,
    title: str = "bozzetto",
    mesh: Mesh | None = None,
    up: Sequence[float] = (0.0, 1.0, 0.0),
) -> None:
    """Write a self-contained page that shows ``gaussians``, ``mesh`` or both, atomically.

    Args:
        path: ``.html`` file.
        gaussians: one object (no batch dimension), any SH degree. Splats that no rasterizer draws (non-finite, opacity
            below 1/255) are left out. None shows the mesh alone.
        title: shown on the page, any text.
        mesh: texture, vertex colours or plain. Beside splats, it adds a button that switches between the two.
        up: which way is up in the world that the object lives in; (0, 0, 1) for Blender's. The first view looks at the
            front: +z for a y-up world, -y for a z-up one.

    Raises:
        OutputError: the suffix is not .html, or the file cannot be written.
        MeshError: no Gaussians, and a mesh without triangles.
        ValueError: batched Gaussians, neither Gaussians nor a mesh, or ``up`` of zero length.
    """
    path = page_path(path)
    if gaussians is None and mesh is None:
        raise ValueError("a viewer page needs Gaussians or a mesh to show")
    if gaussians is None and not len(mesh.faces):
        raise MeshError("the mesh has no triangles; there is nothing to show")
    if gaussians is not None and gaussians.batch_shape:
        raise ValueError("a viewer shows one object: pick one first, e.g. gaussians[0]; write_player shows sequences")
    drawn = Gaussians.empty() if gaussians is None else gaussians.detach().to("cpu", torch.float32).prune(1 / 255)
    meta, data = pack_splats(drawn)
    scene = page_scene(*_bounds(drawn, mesh), up) | {"splats": meta}
    mesh_data = b""
    if mesh is not None and len(mesh.faces):
        scene["mesh"], mesh_data = pack_mesh(mesh)
    atomic_write_text(path, page_text(title, scene, data, mesh_data))


def page_path(path: str | PathLike[str]) -> Path:
    """``path`` if a page may be called so, else :class:`OutputError`."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"cannot write {path}: a viewer page's name must end in .html")
    return path


def page_scene(centre: list[float], radius: float, up: Sequence[float]) -> dict:
    """What every page needs to know: where the object is, and which way is up."""
    scene = {"centre": centre, "radius": radius, "fov": FOV_Y, "frame": _frame(up)}
    return scene | {"splats": None, "mesh": None, "film": None}


def pack_splats(gaussians: Gaussians) -> tuple[dict, bytes]:
    """The page's description and planar little-endian arrays of unbatched Gaussians; see the module's text."""
    n = len(gaussians)
    quats = torch.nn.functional.normalize(gaussians.quats, dim=-1)
    # A quaternion of zero length is no rotation.
    quats = torch.where(quats.norm(dim=-1, keepdim=True) < 0.5, quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats)
    log_scales, scale_range = _quantise(gaussians.scales.clamp(1e-12, 1e12).log().numpy())
    colours, colour_range = _quantise(gaussians.rgb.numpy())
    rest = gaussians.sh[:, 1:].numpy()  # [N, K - 1, 3]
    harmonics = np.zeros(rest.shape, np.int8)
    band_scales = [1.0, 1.0, 1.0]
    for band in range(1, gaussians.sh_degree + 1):
        span = slice(band * band - 1, (band + 1) ** 2 - 1)
        band_scales[band - 1] = float(np.abs(rest[:, span]).max(initial=0.0)) or 1.0
        harmonics[:, span] = np.rint(rest[:, span] * (127 / band_scales[band - 1]))
    parts = [
        gaussians.means.numpy().astype("<f4"),
        np.rint(quats.numpy() * 32767).astype("<i2"),
        log_scales,
        colours,
        np.rint(gaussians.opacities.clamp(0, 1).numpy() * 65535).astype("<u2"),
        harmonics,
    ]
    meta = {
        "count": n,
        "degree": gaussians.sh_degree,
        "logScale": scale_range,
        "colour": colour_range,
        "shScale": band_scales,
    }
    return meta, b"".join(p.tobytes() for p in parts)


def pack_mesh(mesh: Mesh) -> tuple[dict, bytes]:
    """The page's description and arrays (faces uint32, vertices and uvs float32, colours uint8) of a mesh."""
    parts = [
        mesh.faces.detach().cpu().numpy().astype("<u4"),
        mesh.vertices.detach().cpu().numpy().astype("<f4"),
    ]
    textured = mesh.texture is not None
    coloured = mesh.colors is not None and not textured
    if textured:
        parts.append(mesh.uvs.detach().cpu().numpy().astype("<f4"))
    if coloured:
        parts.append(to_uint8(mesh.colors))
    meta = {
        "faces": len(mesh.faces),
        "vertices": len(mesh.vertices),
        "uvs": textured,
        "colours": coloured,
        "texture": _texture_url(mesh.texture) if textured else None,
    }
    return meta, b"".join(p.tobytes() for p in parts)


def _texture_url(texture: torch.Tensor) -> str:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(to_uint8(texture)).save(buffer, format="JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _quantise(values: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """``values`` as uint16 steps between their smallest and largest, and those two."""
    if not values.size:
        return values.astype("<u2"), [0.0, 0.0]
    low, high = float(values.min()), float(values.max())
    steps = (values.astype(np.float64) - low) * (65535 / (high - low) if high > low else 0.0)
    return np.rint(steps).astype("<u2"), [low, high]


def _bounds(gaussians: Gaussians, mesh: Mesh | None) -> tuple[list[float], float]:
    """Centre and radius of what the first view must hold; a few stray splats do not count."""
    points = gaussians.means[gaussians.opacities > 0.1].double()
    if not len(points):
        points = gaussians.means.double()
    if not len(points) and mesh is not None:
        points = mesh.vertices.detach().double().cpu()
    if not len(points):
        return [0.0, 0.0, 0.0], 1.0
    ordered = points.sort(dim=0).values
    skip = len(points) // 100
    centre = (ordered[skip] + ordered[-1 - skip]) / 2
    distance = (points - centre).norm(dim=-1).sort().values
    radius = float(distance[-1 - skip])
    return centre.tolist(), radius if radius > 0 else 1.0


def _frame(up: Sequence[float]) -> list[list[float]]:
    """Rows: right, up and front of the viewer in the world, by the shortest turn that takes +y to ``up``."""
    x, y, z = (float(v) for v in up)
    length = math.sqrt(x * x + y * y + z * z)
    if not math.isfinite(length) or length < 1e-12:
        raise ValueError(f"up must be a direction, got {tuple(up)}")
    x, y, z = x / length, y / length, z / length
    if y < -1 + 1e-9:
        return [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]
    k = 1 / (1 + y)
    return [[1 - k * x * x, -x, -k * x * z], [x, y, z], [-k * x * z, -z, 1 - k * z * z]]


@cache
def _asset(name: str) -> str:
    return files("bozzetto.files").joinpath("viewer_assets", name).read_text(encoding="utf-8")


def page_text(title: str, scene: dict, splats: bytes, mesh: bytes = b"") -> str:
    """The whole page. ``scene`` becomes JSON, the arrays base64."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        release = version("bozzetto")
    except PackageNotFoundError:  # run from a source folder that was never installed
        release = ""
    # "<" could end the script element that holds the JSON.
    document = json.dumps(scene, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    # A lone surrogate (a file name in another encoding) cannot be written as UTF-8.
    title = title.encode("utf-8", "replace").decode("utf-8")
    values = {
        "version": html.escape(release),
        "title": html.escape(" ".join(title.split()) or "bozzetto"),
        "style": _asset("viewer.css"),
        "script": "\n".join(_asset(name) for name in _SCRIPTS),
        "scene": document,
        "splats": base64.b64encode(splats).decode("ascii"),
        "mesh": base64.b64encode(mesh).decode("ascii"),
    }
    # One pass, so that a title that looks like a placeholder stays a title.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], _asset("viewer.html"))
