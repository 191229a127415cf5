"""The Gaussians that the optimisation starts from: Shap-E's points, or a mesh, a point cloud or Gaussians from a file.

Whatever the start is, it is brought into the house axes and a common size (Shap-E's objects, about 1.25 wide), grown
(:mod:`.grow`) and enlarged by 1.6, the published size under cameras at a distance of 1.5 to 4. The result goes back to
where its start was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError, SplatFileError
from ...files.ply_format import PlyError, parse_header, parse_ply
from ...gaussians import SH_C0, Gaussians
from ...mesh import Mesh
from .cameras import OBJECT_TO_WORLD
from .grow import CANDIDATES, COLOUR_NOISE, REACH, grow_points

POINT_SCALE = 4.0 * 0.4  # the published bound: camera distance times 0.4
HALF_WIDTH = 0.625  # of a start from a file before that scale, like Shap-E's
START_OPACITY = 0.1
MIN_SQUARED_DISTANCE = 1e-7
MESH_POINTS = 50_000
MIN_POINTS = 4  # a size is found from the three nearest neighbours
SPLAT_SUFFIXES, MESH_SUFFIXES = (".splat",), (".glb", ".gltf", ".obj")


@dataclass
class Cloud:
    """Coloured points: positions [N, 3] and rgb [N, 3], float64."""

    points: np.ndarray
    rgb: np.ndarray

    def __post_init__(self) -> None:
        if len(self.points) < MIN_POINTS:
            raise InputError(f"the start has {len(self.points)} points; at least {MIN_POINTS} are needed")
        if not (np.isfinite(self.points).all() and np.isfinite(self.rgb).all()):
            raise InputError("the start has points that are NaN or infinite; repair the file")


@dataclass
class Start:
    """Where the optimisation begins.

    Attributes:
        gaussians: unbatched, in the optimisation's world (house axes, published size).
        back: [4, 4] float64, from that world to the start's own.
        source: what it was made from, for the report.
    """

    gaussians: Gaussians
    back: Tensor
    source: str


def gaussians_from_points(points: np.ndarray, rgb: np.ndarray) -> Gaussians:
    """One round Gaussian per point: opacity 0.1, and as deviation the root mean square distance to the three nearest
    neighbours. points, rgb: [N, 3]; float32 result on the CPU.

    Raises:
        InputError: fewer than four points.
    """
    from scipy.spatial import cKDTree

    cloud = Cloud(np.asarray(points, np.float64), np.asarray(rgb, np.float64))
    distance = cKDTree(cloud.points).query(cloud.points, k=4)[0][:, 1:]  # without the point itself
    variance = np.maximum((distance**2).mean(axis=1), MIN_SQUARED_DISTANCE)
    n = len(cloud.points)
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1.0
    return Gaussians(
        torch.from_numpy(cloud.points).float(),
        torch.from_numpy(np.sqrt(variance)).float()[:, None].repeat(1, 3),
        quats,
        torch.full((n,), START_OPACITY),
        torch.from_numpy((cloud.rgb - 0.5) / SH_C0).float()[:, None],
    )


def start_from_shap_e(vertices: Tensor, rgb: Tensor, *, candidates: int, reach: float, colour_noise: float) -> Start:
    """Grow Shap-E's mesh vertices [V, 3] (its own z-up axes) with colours [V, 3] (linear light, used as they are)."""
    cloud = Cloud(vertices.detach().double().cpu().numpy(), rgb.detach().double().cpu().numpy())
    grown, colours = grow_points(cloud.points, cloud.rgb, candidates=candidates, reach=reach, colour_noise=colour_noise)
    gaussians = gaussians_from_points((grown * POINT_SCALE) @ OBJECT_TO_WORLD.double().numpy().T, colours)
    return Start(gaussians, _scaling(1 / POINT_SCALE), "shap-e")


def start_from_file(
    path: str | Path,
    *,
    candidates: int = CANDIDATES,
    reach: float = REACH,
    colour_noise: float = COLOUR_NOISE,
    seed: int = 0,
) -> Start:
    """A start from a splat file (used as it is), a mesh (50,000 surface points) or a point-cloud PLY, y up, front to +z.

    ``candidates``, ``reach`` and ``colour_noise`` are those of :func:`.grow.grow_points`; splats are not grown.

    Raises:
        InputError: missing, empty or malformed file, too few points, another format.
    """
    kind, loaded = read_start(Path(path), seed)
    points = loaded.means.double().numpy() if isinstance(loaded, Gaussians) else loaded.points
    if len(points) < MIN_POINTS:
        raise InputError(f"{path} has {len(points)} Gaussians; at least {MIN_POINTS} are needed")
    low, high = (
        np.quantile(points, [0.002, 0.998], axis=0)
        if isinstance(loaded, Gaussians)
        else (
            points.min(axis=0),
            points.max(axis=0),
        )
    )
    half = float((high - low).max()) / 2
    if half < 1e-9:
        raise InputError(f"{path}: all its points lie on one spot; give a start that has an extent")
    centre, scale = torch.from_numpy((low + high) / 2), HALF_WIDTH / half
    forth = _scaling(scale)
    forth[:3, 3] = -scale * centre
    if isinstance(loaded, Gaussians):
        gaussians = loaded.transformed(_scaling(POINT_SCALE) @ forth)
    else:
        grown, colours = grow_points(
            (points - centre.numpy()) * scale,
            loaded.rgb,
            candidates=candidates,
            reach=reach,
            colour_noise=colour_noise,
        )
        gaussians = gaussians_from_points(grown * POINT_SCALE, colours)
    return Start(gaussians, torch.linalg.inv(_scaling(POINT_SCALE) @ forth), kind)


def read_start(path: Path, seed: int = 0) -> tuple[str, Gaussians | Cloud]:
    """("splats", Gaussians), ("mesh", Cloud of surface points) or ("points", Cloud), recognised by content."""
    from ...files.inputs import check_input
    from ...files.meshes import read_mesh

    path = check_input(path, "a mesh, a point cloud or a splat file", InputError)
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(4)
    if suffix in MESH_SUFFIXES or head == b"glTF":
        return "mesh", surface_points(read_mesh(path), MESH_POINTS, seed)
    if suffix in SPLAT_SUFFIXES:
        return "splats", Gaussians.load(path)
    if head[:3] != b"ply":
        raise InputError(
            f"{path} is no start that can be read; give a .ply (splats, mesh or points), .splat, .glb or .obj file"
        )
    data = path.read_bytes()
    try:
        _, elements, _, _ = parse_header(data)
        vertex = next((e for e in elements if e.name == "vertex"), None)
        names = {p.name for p in vertex.properties} if vertex else set()
        if "f_dc_0" in names or "packed_position" in names:
            return "splats", Gaussians.load(path)
        if any(e.name == "face" and e.count for e in elements):
            return "mesh", surface_points(read_mesh(path), MESH_POINTS, seed)
        if not {"x", "y", "z"} <= names:
            raise PlyError("it has no points (no x, y, z)")
        if vertex.count == 0:
            raise PlyError("it has 0 points; give a file that has some")
        table = parse_ply(data, ["vertex"])["vertex"]
    except PlyError as problem:
        raise SplatFileError(f"{path}: {problem}") from None
    points = table.columns(("x", "y", "z"), "f8")
    colours = ("red", "green", "blue")
    if set(colours) <= names:
        kind = next(p.type for p in vertex.properties if p.name == "red")
        rgb = table.columns(colours, "f8") / {"u1": 255.0, "u2": 65535.0}.get(kind, 1.0)
    else:
        rgb = grey(len(points), np.random.RandomState(seed % 2**32))
    return "points", Cloud(points, rgb)


def surface_points(mesh: Mesh, count: int, seed: int = 0) -> Cloud:
    """``count`` points drawn uniformly by area from a mesh, with its texture's or vertices' colours, or almost grey."""
    from ...files.mesh_ply import sample_texture

    random = np.random.RandomState(seed % 2**32)
    corners = mesh.vertices[mesh.faces].double()  # [F, 3, 3]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1).norm(dim=-1)
    if not float(area.sum()) > 0 or not bool(torch.isfinite(area).all()):
        raise InputError("the start mesh has no area; give a mesh with triangles of some size")
    face = torch.from_numpy(random.choice(len(area), count, p=(area / area.sum()).numpy()))
    u, v = np.sqrt(random.random_sample(count)), random.random_sample(count)
    weights = torch.from_numpy(np.stack([1 - u, u * (1 - v), u * v], axis=-1))  # uniform in a triangle

    def mix(values: Tensor) -> Tensor:
        return (values[mesh.faces[face]].double() * weights[..., None]).sum(1)

    if mesh.texture is not None:
        rgb = sample_texture(mesh.texture, mix(mesh.uvs).float()).double().numpy()
    elif mesh.colors is not None:
        rgb = mix(mesh.colors).numpy()
    else:
        rgb = grey(count, random)
    return Cloud(mix(mesh.vertices).numpy(), rgb)


def grey(count: int, random: np.random.RandomState) -> np.ndarray:
    """Almost grey colours [count, 3] (published for the uncoloured avatar): SH coefficients in 0..1/255."""
    return 0.5 + SH_C0 * random.random_sample((count, 3)) / 255


def _scaling(scale: float) -> Tensor:
    return torch.diag(torch.tensor([scale, scale, scale, 1.0], dtype=torch.float64))
