"""Users' USD files: geometry, pictures, what moves."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from asset_shapes import picture, turn_z
from user_files import BOX, SIDES, png, shift

from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.mesh_files import read_mesh_file
from bozzetto.data.assets.user_folder import find_objects
from bozzetto.errors import MeshError

needs_usd = pytest.mark.skipif(importlib.util.find_spec("pxr") is None, reason="usd-core is not installed")

USDA = """#usda 1.0
(
    upAxis = "Z"
)
def Xform "World"
{
    double3 xformOp:translate = (0, 0, 5)
    uniform token[] xformOpOrder = ["xformOp:translate"]
    def Mesh "box" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {
        int[] faceVertexCounts = [4, 4, 4, 4, 4, 4]
        int[] faceVertexIndices = [CORNERS]
        point3f[] points = [POINTS]
        rel material:binding = </World/paint>
    }
    def Material "paint"
    {
        token outputs:surface.connect = </World/paint/surface.outputs:surface>
        def Shader "surface"
        {
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor = (1, 0, 0)
            token outputs:surface
        }
    }
}
"""


@needs_usd
def test_usd(tmp_path):
    corners = ", ".join(str(i) for side in SIDES for i in side)
    points = ", ".join(f"({x}, {y}, {z})" for x, y, z in BOX)
    (tmp_path / "box.usda").write_text(USDA.replace("CORNERS", corners).replace("POINTS", points))
    obj = read_mesh_file(tmp_path / "box.usda")
    (part,) = obj.parts
    assert obj.triangles == 12 and len(part.vertices) == 8 and part.colour == pytest.approx((1, 0, 0))
    np.testing.assert_allclose([part.vertices.min(0), part.vertices.max(0)], [[0, 5, -2], [1, 6, 0]], atol=1e-6)
    normal = np.cross(*np.diff(part.vertices[part.faces[0]], axis=0))
    assert normal @ (part.vertices[part.faces[0]].mean(0) - part.vertices.mean(0)) > 0
    (tmp_path / "bad.usda").write_text("#usda 1.0\ndef {")
    with pytest.raises(MeshError, match="cannot be opened"):
        read_mesh_file(tmp_path / "bad.usda")


@needs_usd
def test_usd_with_a_picture(tmp_path):
    shader = """
        def Shader "picture"
        {
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @skin.png@
            float3 outputs:rgb
        }
    }
}
"""
    text = USDA.replace(
        "inputs:diffuseColor = (1, 0, 0)", "inputs:diffuseColor.connect = </World/paint/picture.outputs:rgb>"
    )
    st = ", ".join(["(0, 0), (1, 0), (1, 1), (0, 1)"] * 6)
    st = f'texCoord2f[] primvars:st = [{st}] (\ninterpolation = "faceVarying"\n)\n'
    text = text.replace("rel material:binding", st + "rel material:binding")
    text = text.rstrip().removesuffix("}").rstrip().removesuffix("}") + shader
    text = text.replace("CORNERS", ", ".join(str(i) for side in SIDES for i in side))
    (tmp_path / "box.usda").write_text(text.replace("POINTS", ", ".join(f"({x}, {y}, {z})" for x, y, z in BOX)))
    assert read_mesh_file(tmp_path / "box.usda").problems == ("missing texture: skin.png",)
    (tmp_path / "skin.png").write_bytes(png(picture(8)))
    obj = read_mesh_file(tmp_path / "box.usda")
    assert obj.problems == () and obj.textures[0].shape == (8, 8, 4) and obj.parts[0].texture == 0
    corner = obj.parts[0].faces[0, 0]  # the first corner has st (0, 0): the picture's bottom left
    np.testing.assert_allclose(obj.parts[0].uvs[corner], [0, 1])


def usd_box(tmp_path, *changes: tuple[str, str]):
    text = USDA.replace("CORNERS", ", ".join(str(i) for side in SIDES for i in side))
    text = text.replace("POINTS", ", ".join(f"({x}, {y}, {z})" for x, y, z in BOX))
    for old, new in (
        ('upAxis = "Z"', 'upAxis = "Z"\nstartTimeCode = 10\nendTimeCode = 34\ntimeCodesPerSecond = 24'),
        *changes,
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "box.usda").write_text(text)
    return read_mesh_file(tmp_path / "box.usda")


@needs_usd
def test_moving_usd(tmp_path):
    still = usd_box(tmp_path)
    assert not still.clips
    place = "double3 xformOp:translate = (0, 0, 5)"
    moved = usd_box(tmp_path, (place, "double3 xformOp:translate.timeSamples = {10: (0, 0, 5), 34: (0, 0, 7)}"))
    (clip,) = moved.clips
    assert clip.fps == pytest.approx(30) and clip.positions[0].shape == (31, 8, 3)
    np.testing.assert_allclose(clip.positions[0][15], still.parts[0].vertices + [0, 1, 0], atol=1e-5)  # z was up
    grown = ", ".join(f"({2 * x}, {y}, {z})" for x, y, z in BOX)
    points = next(line for line in (tmp_path / "box.usda").read_text().splitlines() if "points" in line).strip()
    start = points.partition("=")[2]
    samples = f"point3f[] points.timeSamples = {{10:{start}, 34: [{grown}]}}"
    (clip,) = usd_box(tmp_path, (points, samples)).clips
    assert clip.positions[0][:, :, 0].max(1) == pytest.approx(np.linspace(1, 2, 31), abs=1e-5)
    convert("mine", find_objects(tmp_path, "mine"), tmp_path / "out")
    record = Dataset(tmp_path / "out").record(0)
    assert "animated" in record["flags"] and record["clips"][0]["seconds"] == pytest.approx(1, abs=0.05)


@needs_usd
def test_usd_skeleton(tmp_path):
    from pxr import Gf, Usd, UsdGeom, UsdSkel, Vt

    stage = Usd.Stage.CreateNew(str(tmp_path / "arm.usdc"))
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(24)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    root = UsdSkel.Root.Define(stage, "/arm")
    mesh = UsdGeom.Mesh.Define(stage, "/arm/box")
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(BOX))
    mesh.CreateFaceVertexCountsAttr([4] * 6)
    mesh.CreateFaceVertexIndicesAttr([i for side in SIDES for i in side])
    skeleton = UsdSkel.Skeleton.Define(stage, "/arm/skeleton")
    skeleton.CreateJointsAttr(["low", "low/high"])
    bind = [Gf.Matrix4d(1), Gf.Matrix4d(1).SetTranslate((0, 1, 0))]
    skeleton.CreateBindTransformsAttr(bind)
    skeleton.CreateRestTransformsAttr(bind)
    motion = UsdSkel.Animation.Define(stage, "/arm/skeleton/nod")
    motion.CreateJointsAttr(["low", "low/high"])
    motion.CreateTranslationsAttr([(0, 0, 0), (0, 1, 0)])
    motion.CreateScalesAttr([(1, 1, 1), (1, 1, 1)])
    turns = motion.CreateRotationsAttr()
    for time, degrees in ((0, 0), (24, 90)):
        quaternion = Gf.Quatf(Gf.Rotation(Gf.Vec3d(0, 0, 1), degrees).GetQuat())
        turns.Set([Gf.Quatf(1), quaternion], time)
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateJointIndicesPrimvar(False, 1).Set([int(y > 1) for y in BOX[:, 1]])
    binding.CreateJointWeightsPrimvar(False, 1).Set([1.0] * 8)
    UsdSkel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([motion.GetPath()])
    UsdSkel.BindingAPI.Apply(root.GetPrim())
    stage.Save()
    before = (tmp_path / "arm.usdc").read_bytes()
    (clip,) = read_mesh_file(tmp_path / "arm.usdc").clips
    upper = BOX[:, 1] > 1
    pivot = shift(0, 1, 0)
    for frame in (0, 30):
        matrix = pivot @ turn_z(3 * frame) @ np.linalg.inv(pivot)
        want = np.where(upper[:, None], BOX @ matrix[:3, :3].T + matrix[:3, 3], BOX)
        got = clip.positions[0][frame]
        assert np.abs(got[:, None] - want[None]).max(-1).min(0).max() < 1e-4
    assert (tmp_path / "arm.usdc").read_bytes() == before
