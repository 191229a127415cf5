"""Users' own files: formats, layouts, animated GLB."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import zipfile

import numpy as np
import pytest
from asset_shapes import glb_bytes, picture, turn_z
from PIL import Image

from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.glb_scene import read_glb_scene
from bozzetto.data.assets.mesh_files import read_mesh_file
from bozzetto.data.assets.pose import posed_vertices
from bozzetto.data.assets.user_folder import detect_kind, find_objects
from bozzetto.errors import InputError, MeshError

needs_trimesh = pytest.mark.skipif(importlib.util.find_spec("trimesh") is None, reason="trimesh is not installed")
needs_usd = pytest.mark.skipif(importlib.util.find_spec("pxr") is None, reason="usd-core is not installed")

# A closed box [0, 1] x [0, 2] x [0, 1]: 8 corners, 12 triangles, counter-clockwise from outside.
BOX = np.array([[x, 2 * y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
SIDES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
FACES = np.array([t for a, b, c, d in SIDES for t in ((a, b, c), (a, c, d))], np.int32)


def box_obj(material: str = "") -> str:
    lines = [f"v {x} {y} {z}" for x, y, z in BOX] + ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    lines += [f"f {a + 1}/1 {b + 1}/2 {c + 1}/3 {d + 1}/4" for a, b, c, d in SIDES]
    head = f"mtllib {material}.mtl\nusemtl skin\n" if material else ""
    return head + "\n".join(lines) + "\n"


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def accessor(view: int, kind: int, shape: str, count: int, **more) -> dict:
    return {"bufferView": view, "componentType": kind, "type": shape, "count": count} | more


def skinned_glb(place: np.ndarray | None = None) -> bytes:
    """The box with its upper half on a second joint, which turns by 90 degrees about z in one second."""
    place = np.eye(4) if place is None else place
    upper = (BOX[:, 1] > 1).astype(np.uint8)
    joints = np.stack([upper, 0 * upper, 0 * upper, 0 * upper], -1)
    weights = np.tile(np.array([1, 0, 0, 0], np.float32), (8, 1))
    inverse = np.stack([np.linalg.inv(place), np.linalg.inv(place @ np.diag([1.0, 1, 1, 1]))])
    inverse[1] = np.linalg.inv(place @ _shift(0, 1, 0))
    half = np.sin(np.pi / 4)
    chunks = [
        BOX,
        FACES.astype(np.uint16).reshape(-1),
        joints,
        weights,
        inverse.transpose(0, 2, 1).astype(np.float32),  # column by column
        np.array([0, 1], np.float32),
        np.array([[0, 0, 0, 1], [0, 0, half, half]], np.float32),
    ]
    document = {
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [
            {"mesh": 0, "skin": 0},
            {"matrix": place.T.reshape(-1).tolist(), "children": [2]},
            {"translation": [0, 1, 0]},
        ],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": 4}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "JOINTS_0": 2, "WEIGHTS_0": 3}, "indices": 1}]}],
        "accessors": [
            accessor(0, 5126, "VEC3", 8),
            accessor(1, 5123, "SCALAR", 36),
            accessor(2, 5121, "VEC4", 8),
            accessor(3, 5126, "VEC4", 8),
            accessor(4, 5126, "MAT4", 2),
            accessor(5, 5126, "SCALAR", 2),
            accessor(6, 5126, "VEC4", 2),
        ],
        "animations": [
            {
                "name": "nod",
                "channels": [{"sampler": 0, "target": {"node": 2, "path": "rotation"}}],
                "samplers": [{"input": 5, "output": 6}],
            }
        ],
    }
    return glb_bytes(document, chunks)


def _shift(x, y, z) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = x, y, z
    return out


# The joint's space lies anywhere; what is seen does not depend on it, but moves with the nodes above.
@pytest.mark.parametrize("place", [np.eye(4), _shift(3, 0, -2) @ turn_z(30) @ np.diag([2.0, 2, 2, 1])])
def test_a_skinned_glb_nods(tmp_path, place):
    (tmp_path / "a.glb").write_bytes(skinned_glb(place))
    obj = read_glb_scene(tmp_path / "a.glb")
    (clip,) = obj.clips
    assert clip.name == "nod" and clip.fps == pytest.approx(30) and len(clip.matrices) == 31
    np.testing.assert_allclose(obj.parts[0].vertices, BOX, atol=1e-5)  # bound where it rests
    pivot = place @ _shift(0, 1, 0)
    upper = BOX[:, 1] > 1
    for seconds in (0.0, 0.5, 1.0):
        moved = posed_vertices(obj, "nod", seconds)[0]
        matrix = pivot @ turn_z(90 * seconds) @ np.linalg.inv(pivot)
        np.testing.assert_allclose(moved[~upper], BOX[~upper], atol=1e-4)
        np.testing.assert_allclose(moved[upper], BOX[upper] @ matrix[:3, :3].T + matrix[:3, 3], atol=1e-4)


def test_moving_nodes_of_a_glb_move_rigidly(tmp_path):
    chunks = [
        BOX,
        FACES.astype(np.uint16).reshape(-1),
        np.array([0, 2], np.float32),
        np.array([[0, 0, 0], [4, 0, 0]], np.float32),
    ]
    chunks.append(png(picture(8)))
    chunks[4] = np.frombuffer(chunks[4], np.uint8)
    chunks.append(np.tile(BOX[:, :2], 1).astype(np.float32))
    document = {
        "nodes": [{"mesh": 0, "scale": [1, 1, -1]}, {"children": [2], "translation": [10, 0, 0]}, {"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 4}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}, "alphaMode": "MASK"}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "accessors": [
            accessor(0, 5126, "VEC3", 8),
            accessor(1, 5123, "SCALAR", 36),
            accessor(2, 5126, "SCALAR", 2),
            accessor(3, 5126, "VEC3", 2),
            accessor(5, 5126, "VEC2", 8),
        ],
        "animations": [
            {
                "channels": [{"sampler": 0, "target": {"node": 1, "path": "translation"}}],
                "samplers": [{"input": 2, "output": 3, "interpolation": "STEP"}],
            }
        ],
    }
    (tmp_path / "a.glb").write_bytes(glb_bytes(document, chunks))
    obj = read_glb_scene(tmp_path / "a.glb")
    assert len(obj.parts) == 2 and len(obj.textures) == 1 and obj.textures[0].shape == (8, 8, 4)
    assert {p.alpha for p in obj.parts} == {"mask"}
    order = [int(p.vertices[:, 0].min()) for p in obj.parts]
    still, moving = obj.parts[order.index(0)], obj.parts[order.index(10)]
    normal = np.cross(*np.diff(still.vertices[still.faces[0]], axis=0))  # the mirrored box is still counter-clockwise
    assert normal @ (still.vertices[still.faces[0]].mean(0) - still.vertices.mean(0)) > 0
    late = posed_vertices(obj, 0, 2.0)
    np.testing.assert_allclose(late[order.index(0)], still.vertices, atol=1e-5)
    np.testing.assert_allclose(late[order.index(10)], BOX + [4, 0, 0], atol=1e-5)
    early = posed_vertices(obj, 0, 1.0)  # the step has not come yet; the track's first value stands, not the node's
    np.testing.assert_allclose(early[order.index(10)], BOX, atol=1e-5)
    assert moving.joints is not None


def test_a_damaged_glb_says_so(tmp_path):
    data = skinned_glb()
    for broken in (data[:200], data[: len(data) // 2], b"glTF", data.replace(b'"joints": [1, 2]', b'"joints": [1, 9]')):
        (tmp_path / "a.glb").write_bytes(broken)
        with pytest.raises(MeshError):
            read_glb_scene(tmp_path / "a.glb")


def test_a_folder_of_glb_becomes_a_dataset(tmp_path):
    (tmp_path / "in" / "robots").mkdir(parents=True)
    (tmp_path / "in" / "robots" / "noddingBox.glb").write_bytes(skinned_glb())
    (tmp_path / "in" / "robots" / "broken.glb").write_bytes(b"glTF")
    report = convert("mine", find_objects(tmp_path / "in", "mine", licence="CC0-1.0"), tmp_path / "out")
    assert report.objects == 1 and report.refused == {"cannot be read": 1}
    obj = Dataset(tmp_path / "out")[0]
    assert (obj.caption, obj.category, obj.licence) == ("nodding box", "robots", "CC0-1.0") and obj.clips[
        0
    ].name == "nod"


def test_obj_with_pictures(tmp_path):
    (tmp_path / "box.obj").write_text(box_obj("box"))
    (tmp_path / "box.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    obj = read_mesh_file(tmp_path / "box.obj")
    assert obj.problems == ("missing texture: skin.png",)
    (tmp_path / "skin.png").write_bytes(png(picture(8)))
    obj = read_mesh_file(tmp_path / "box.obj")
    assert obj.problems == () and obj.triangles == 12 and len(obj.textures) == 1
    np.testing.assert_allclose(obj.parts[0].uvs.max(0), 1)


@needs_trimesh
def test_ply_stl_and_coloured_obj(tmp_path):
    import trimesh

    mesh = trimesh.Trimesh(BOX, FACES, process=False, vertex_colors=np.tile(np.uint8([200, 10, 20, 255]), (8, 1)))
    for name in ("a.ply", "a.stl", "a.obj", "a.off"):
        mesh.export(tmp_path / name)
        obj = read_mesh_file(tmp_path / name)
        assert obj.triangles == 12, name
        corners = np.concatenate([p.vertices for p in obj.parts])
        np.testing.assert_allclose([corners.min(0), corners.max(0)], [[0, 0, 0], [1, 2, 1]], atol=1e-6)
        if name in ("a.ply", "a.obj"):
            assert (obj.parts[0].colours == [200, 10, 20]).all(), name
    (tmp_path / "bad.ply").write_bytes(b"ply\nnothing")
    with pytest.raises(MeshError, match="cannot be read"):
        read_mesh_file(tmp_path / "bad.ply")
    with pytest.raises(MeshError, match="not a mesh format"):
        read_mesh_file(tmp_path / "bad.txt")


@needs_trimesh
def test_stl_is_z_up_unless_told(tmp_path):
    import trimesh

    trimesh.Trimesh(BOX, FACES, process=False).export(tmp_path / "tall.stl")
    (task,) = find_objects(tmp_path)
    extent = np.ptp(task.load().parts[0].vertices, axis=0)
    np.testing.assert_allclose(extent, [1, 1, 2])  # the file's y, 2 long, is depth now
    (task,) = find_objects(tmp_path, up="y")
    np.testing.assert_allclose(np.ptp(task.load().parts[0].vertices, axis=0), [1, 2, 1])


def test_objaverse_layout(tmp_path):
    root = tmp_path / "hf-objaverse-v1"
    (root / "glbs" / "000-023").mkdir(parents=True)
    (root / "metadata").mkdir()
    uid = "0123456789abcdef0123456789abcdef"
    (root / "glbs" / "000-023" / f"{uid}.glb").write_bytes(skinned_glb())
    entry = {
        "name": "Nodding thing",
        "license": "by-nc",
        "user": {"displayName": "Ann"},
        "tags": [{"name": "toy"}],
        "categories": [{"name": "art"}],
    }
    with gzip.open(root / "metadata" / "000-023.json.gz", "wt") as file:
        json.dump({uid: entry}, file)
    assert detect_kind(root) == detect_kind(tmp_path) == "objaverse"
    (task,) = find_objects(tmp_path, "objaverse")
    obj = task.load()
    assert (obj.caption, obj.licence, obj.author, obj.tags) == ("Nodding thing", "CC-BY-NC-4.0", "Ann", ("toy",))
    assert obj.name == f"000-023/{uid}" and obj.category == "art"


@pytest.mark.parametrize("zipped", [False, True])
def test_scanned_objects_layout(tmp_path, zipped):
    about = 'name: "Red_Shoe"\ncategories {\n  first: "Shoe"\n}\n'
    files = {
        "meshes/model.obj": box_obj("model").encode(),
        "meshes/model.mtl": b"newmtl skin\nmap_Kd texture.png\n",
        "materials/textures/texture.png": png(picture(8)),
        "metadata.pbtxt": about.encode(),
    }
    if zipped:
        with zipfile.ZipFile(tmp_path / "Red_Shoe.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            path = tmp_path / "Red_Shoe" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    assert detect_kind(tmp_path) == "gso"
    (task,) = find_objects(tmp_path, "gso")
    obj = task.load()
    assert (obj.caption, obj.category, obj.licence) == ("red shoe", "Shoe", "CC-BY-4.0") and obj.problems == ()
    assert len(obj.textures) == 1
    np.testing.assert_allclose(np.ptp(obj.parts[0].vertices, axis=0), [1, 1, 2])


def test_captions_beside_files_and_generic_names(tmp_path):
    (tmp_path / "chair").mkdir()
    (tmp_path / "chair" / "model.obj").write_text(box_obj())
    (tmp_path / "x1.obj").write_text(box_obj())
    (tmp_path / "x1.txt").write_text("a tall white box\nmore")
    assert [t.caption for t in find_objects(tmp_path)] == ["chair", "a tall white box"]


def test_folders_without_meshes(tmp_path):
    with pytest.raises(InputError, match="holds no objects"):
        find_objects(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        find_objects(tmp_path / "x")


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
    pivot = _shift(0, 1, 0)
    for frame in (0, 30):
        matrix = pivot @ turn_z(3 * frame) @ np.linalg.inv(pivot)
        want = np.where(upper[:, None], BOX @ matrix[:3, :3].T + matrix[:3, 3], BOX)
        got = clip.positions[0][frame]
        assert np.abs(got[:, None] - want[None]).max(-1).min(0).max() < 1e-4
    assert (tmp_path / "arm.usdc").read_bytes() == before


@pytest.mark.parametrize("skinned", [False, True])
def test_morph_targets(tmp_path, skinned):
    """The upper half grows by 1 and by 3; half of the first shape stands at rest, then it goes from the first to the second."""
    (tmp_path / "a.glb").write_bytes(skinned_glb())
    before = read_glb_scene(tmp_path / "a.glb")
    upper = (BOX[:, 1:2] > 1).astype(np.float32)
    chunks = [
        BOX,
        FACES.astype(np.uint16).reshape(-1),
        upper * np.float32([0, 1, 0]),
        upper * np.float32([0, 3, 0]),
        np.array([0, 1], np.float32),
        np.array([1, 0, 0, 1], np.float32),  # two weights at two times
        np.array([[0, 0, 0], [8, 0, 0]], np.float32),
    ]
    document = {
        "nodes": [{"mesh": 0, "translation": [0, 0, 0], "scale": [2, 2, 2]}],
        "meshes": [
            {
                "weights": [0.5, 0],
                "primitives": [
                    {"attributes": {"POSITION": 0}, "indices": 1, "targets": [{"POSITION": 2}, {"POSITION": 3}]}
                ],
            }
        ],
        "accessors": [
            accessor(0, 5126, "VEC3", 8),
            accessor(1, 5123, "SCALAR", 36),
            accessor(2, 5126, "VEC3", 8),
            accessor(3, 5126, "VEC3", 8),
            accessor(4, 5126, "SCALAR", 2),
            accessor(5, 5126, "SCALAR", 4),
            accessor(6, 5126, "VEC3", 2),
        ],
        "animations": [
            {
                "name": "grow",
                "channels": [
                    {"sampler": 0, "target": {"node": 0, "path": "weights"}},
                    {"sampler": 1, "target": {"node": 0, "path": "translation"}},
                ],
                "samplers": [{"input": 4, "output": 5}, {"input": 4, "output": 6}],
            }
        ],
    }
    if skinned:  # a joint of its own carries the box sideways instead of the node
        document["nodes"] = [{"mesh": 0, "skin": 0}, {}]
        document["skins"] = [{"joints": [1]}]
        primitive = document["meshes"][0]["primitives"][0]
        chunks += [np.zeros((8, 4), np.uint8), np.tile(np.float32([1, 0, 0, 0]), (8, 1))]
        document["accessors"] += [accessor(7, 5121, "VEC4", 8), accessor(8, 5126, "VEC4", 8)]
        primitive["attributes"] |= {"JOINTS_0": 7, "WEIGHTS_0": 8}
        document["animations"][0]["channels"][1]["target"]["node"] = 1
    scale = 1 if skinned else 2
    (tmp_path / "b.glb").write_bytes(glb_bytes(document, chunks))
    obj = read_glb_scene(tmp_path / "b.glb")
    np.testing.assert_allclose(obj.parts[0].vertices, scale * (BOX + upper * [0, 0.5, 0]), atol=1e-5)
    (clip,) = obj.clips
    assert clip.name == "grow" and clip.matrices is None and obj.parts[0].joints is None
    for seconds, height in ((0.0, 1.0), (0.5, 2.0), (1.0, 3.0)):
        want = scale * (BOX + upper * [0, height, 0]) + [8 * seconds, 0, 0]
        np.testing.assert_allclose(posed_vertices(obj, "grow", seconds)[0], want, atol=1e-4)
    convert("mine", find_objects(tmp_path, "mine"), tmp_path / "out")
    records = {r["name"]: r for r in Dataset(tmp_path / "out").records()}
    assert len(records) == 2 and all("animated" in r["flags"] for r in records.values())
    assert before.clips[0].matrices is not None  # without morph targets joints stay joints
    document["animations"][0]["channels"].pop(0)
    (tmp_path / "b.glb").write_bytes(glb_bytes(document, chunks))
    (clip,) = read_glb_scene(tmp_path / "b.glb").clips
    assert clip.matrices is not None
    document["accessors"][2]["count"] = 4
    (tmp_path / "b.glb").write_bytes(glb_bytes(document, chunks))
    with pytest.raises(MeshError, match="malformed"):
        read_glb_scene(tmp_path / "b.glb")
