"""USD files (.usd, .usda, .usdc, .usdz) through the usd-core package: meshes, preview materials, display colours, motion.

Shapes are those of the earliest time of which the stage says anything; what moves in its time range becomes a clip
(:mod:`.usd_motion`). Not read: subdivision (the cage is taken as it is), displacement, materials that change.
"""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import MeshError
from ...files.inputs import check_input
from .source_object import Part, SourceObject


def read_usd_scene(path: str | PathLike[str], source: str = "", name: str = "") -> SourceObject:
    """One object of all meshes of a stage, y up.

    Raises:
        MeshError: the file cannot be opened. MissingDependencyError: usd-core is not installed.
    """
    try:
        from pxr import Tf, Usd, UsdGeom

        from .usd_motion import Mover, bake_skeletons, sample_motion
    except ImportError:
        from .mesh_files import needs_extra

        raise needs_extra("usd-core", "reading USD files") from None
    path = check_input(path, "a USD file", MeshError)
    try:
        stage = Usd.Stage.Open(str(path))
    except Tf.ErrorException as problem:
        raise MeshError(f"{path} cannot be opened: {str(problem).strip().splitlines()[-1]}") from None
    bake_skeletons(stage)
    out = SourceObject(source, name, name, [])
    movers: list[Mover] = []
    pictures: dict[str, int | None] = {}
    places = UsdGeom.XformCache(Usd.TimeCode.EarliestTime())
    turned = UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.z
    for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies()):
        if not prim.IsA(UsdGeom.Mesh):
            continue
        mesh = UsdGeom.Mesh(prim)
        if mesh.ComputeVisibility() == UsdGeom.Tokens.invisible or mesh.ComputePurpose() in ("proxy", "guide"):
            continue
        matrix = np.array(places.GetLocalToWorldTransform(prim)).T
        for part, numbers in _mesh_parts(mesh, matrix, out, pictures):
            movers.append(Mover(mesh, numbers))
            if turned:
                part.vertices = y_up(part.vertices)
            out.parts.append(part)
    out.clips = sample_motion(stage, movers, y_up if turned else None)
    return out


def y_up(places: NDArray) -> NDArray[np.float32]:
    """Points [..., 3] of a stage whose z points up."""
    return np.ascontiguousarray(places[..., [0, 2, 1]] * np.float32([1, 1, -1]))


def _mesh_parts(
    mesh, matrix: NDArray, out: SourceObject, pictures: dict[str, int | None]
) -> list[tuple[Part, NDArray]]:
    """One part per material of a mesh (its own, or one for each subset of faces), and the points its vertices stand at."""
    from pxr import Usd, UsdGeom, UsdShade

    points = np.array(mesh.GetPointsAttr().Get(Usd.TimeCode.EarliestTime()) or [], np.float64).reshape(-1, 3)
    sizes = np.array(mesh.GetFaceVertexCountsAttr().Get() or [], np.int64)
    corners = np.array(mesh.GetFaceVertexIndicesAttr().Get() or [], np.int64)
    if not len(points) or not len(sizes) or sizes.sum() != len(corners):
        return []
    triangles, owner = _fans(sizes)  # [F, 3] corner numbers, [F] polygon of each
    if len(corners) and not 0 <= corners.min() <= corners.max() < len(points):
        raise MeshError(f"{mesh.GetPath()}: a face names a point that is not there")
    if (mesh.GetOrientationAttr().Get() == UsdGeom.Tokens.leftHanded) != (np.linalg.det(matrix[:3, :3]) < 0):
        triangles = triangles[:, ::-1]
    places = (points @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
    variables = UsdGeom.PrimvarsAPI(mesh)
    uvs = None
    for kind in ("st", "st0", "UVMap", "uv", "map1"):
        primvar = variables.FindPrimvarWithInheritance(kind)
        if primvar and primvar.HasValue():
            uvs = _per_corner(primvar, corners, owner, triangles, 2)
            break
    shown = _per_corner(mesh.GetDisplayColorPrimvar(), corners, owner, triangles, 3)
    subsets = UsdShade.MaterialBindingAPI(mesh).GetMaterialBindSubsets()
    chosen = [(s.GetPrim(), np.isin(owner, np.array(s.GetIndicesAttr().Get() or [], int))) for s in subsets]
    rest = np.ones(len(owner), bool)
    for _, inside in chosen:
        rest &= ~inside
    parts = []
    for prim, inside in [*chosen, (mesh.GetPrim(), rest)]:
        if not inside.any():
            continue
        material = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()[0]
        colour, picture = _look(material, out, pictures)
        flat = triangles[inside].reshape(-1)
        has = picture is not None and uvs is not None
        part = Part(
            places[corners[flat]],
            np.arange(len(flat), dtype=np.int32).reshape(-1, 3),
            uvs[inside].reshape(-1, 2) * np.float32([1, -1]) + np.float32([0, 1]) if has else None,
            picture if has else None,
            (1.0, 1.0, 1.0) if has else colour if colour is not None else (0.7, 0.7, 0.7),
        )
        if not has and colour is None and shown is not None:
            part.colour = (1.0, 1.0, 1.0)
            part.colours = np.clip(_srgb(shown[inside].reshape(-1, 3)) * 255, 0, 255).round().astype(np.uint8)
        parts.append(_welded(part, corners[flat], mesh.GetPointsAttr().ValueMightBeTimeVarying()))
    return parts


def _fans(sizes: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Polygons of ``sizes`` corners, one after the other -> fans of triangles: corner numbers [F, 3], polygon [F]."""
    count = np.maximum(sizes - 2, 0)
    owner = np.repeat(np.arange(len(sizes)), count)
    first = (np.cumsum(sizes) - sizes)[owner]
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([first, first + step + 1, first + step + 2], -1), owner


def _per_corner(
    primvar, corners: NDArray, owner: NDArray, triangles: NDArray, width: int
) -> NDArray[np.float32] | None:
    """A primvar as [F, 3, width]; None where it is absent or does not fit the mesh."""
    if not primvar or not primvar.HasValue():
        return None
    values = np.array(primvar.ComputeFlattened(), np.float32)
    if values.ndim != 2 or values.shape[1] < width:
        return None
    kind = primvar.GetInterpolation()
    index = {
        "vertex": corners[triangles],
        "varying": corners[triangles],
        "faceVarying": triangles,
        "uniform": np.repeat(owner[:, None], 3, 1),
        "constant": np.zeros_like(triangles),
    }.get(str(kind))
    if index is None or (index.size and index.max() >= len(values)):
        return None
    return values[index][..., :width]


def _look(material, out: SourceObject, pictures: dict[str, int | None]) -> tuple[tuple | None, int | None]:
    """sRGB colour (None: not stated) and picture number of a preview material."""
    if not material:
        return None, None
    shader = material.ComputeSurfaceSource()[0]
    given = shader.GetInput("diffuseColor") if shader else None
    if not given:
        return None, None
    attributes = given.GetValueProducingAttributes()
    if not attributes:
        return None, None
    from pxr import UsdShade

    producer = UsdShade.Shader(attributes[0].GetPrim())
    if producer and producer.GetInput("file"):
        asset = producer.GetInput("file").Get()
        return None, _picture(asset.resolvedPath or asset.path, out, pictures)
    value = attributes[0].Get()
    return (tuple(float(x) for x in _srgb(np.array(value, np.float64))) if value is not None else None), None


def _picture(name: str, out: SourceObject, pictures: dict[str, int | None]) -> int | None:
    from PIL import Image
    from pxr import Ar

    from ..sources.common import rgba_bytes

    if name not in pictures:
        pictures[name] = None
        try:
            asset = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(name))  # also inside .usdz archives
            data = bytes(asset.GetBuffer()) if asset else Path(name).read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                out.textures.append(rgba_bytes(image))
            pictures[name] = len(out.textures) - 1
        except Exception:  # missing, or one of the many kinds of damage that Pillow tells apart
            out.problems += (f"missing texture: {Path(name).name}",)
    return pictures[name]


def _srgb(linear: NDArray) -> NDArray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _welded(part: Part, points: NDArray, moving: bool) -> tuple[Part, NDArray[np.int64]]:
    """Corners with the same place (of moving points: the same point), coordinates and colour become one vertex.

    Returns the part, and the point [V] of each vertex.
    """
    columns = [points[:, None].astype(np.float64) if moving else part.vertices]
    if part.uvs is not None:
        columns.append(part.uvs)
    if part.colours is not None:
        columns.append(part.colours.astype(np.float32))
    _, first, index = np.unique(np.concatenate(columns, 1), axis=0, return_index=True, return_inverse=True)
    part.faces = index.reshape(-1, 3).astype(np.int32)
    part.vertices = part.vertices[first]
    part.uvs = None if part.uvs is None else part.uvs[first].astype(np.float32)
    part.colours = None if part.colours is None else part.colours[first]
    return part, points[first]
