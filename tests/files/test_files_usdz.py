"""USDZ: the archive as any zip reader sees it, the scene as Pixar's own library reads it (skipped where it is missing)."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from lettered_box import box
from PIL import Image

from bozzetto.app.cli import main
from bozzetto.errors import MeshError, OutputError
from bozzetto.files.glb import srgb_to_linear, write_glb
from bozzetto.files.images import to_uint8
from bozzetto.files.meshes import read_mesh, write_mesh
from bozzetto.files.usdz import PICTURE, aligned_zip
from bozzetto.mesh import Mesh


def coloured(n: int = 5) -> Mesh:
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(n, 3, generator=generator) * 1e3
    return Mesh(vertices, torch.tensor([[0, 1, 2], [1, 4, 3]]), colors=torch.rand(n, 3, generator=generator))


def data_offset(archive: bytes, info: zipfile.ZipInfo) -> int:
    name, extra = struct.unpack_from("<HH", archive, info.header_offset + 26)
    return info.header_offset + 30 + name + extra


def opened(path):
    """The stage and its library; the test is skipped where there is none."""
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Usd

    return Usd.Stage.Open(str(path))


def test_every_file_begins_at_a_multiple_of_64_bytes():
    for names in (["a"], [f"{'n' * k}.bin" for k in range(1, 66)]):
        files = {name: bytes([i % 256]) * (37 * i) for i, name in enumerate(names)}
        archive = aligned_zip(files)
        with zipfile.ZipFile(io.BytesIO(archive)) as opened_zip:
            assert opened_zip.testzip() is None and opened_zip.namelist() == names
            for info in opened_zip.infolist():
                assert info.compress_type == zipfile.ZIP_STORED and data_offset(archive, info) % 64 == 0
                assert opened_zip.read(info) == files[info.filename]


def test_archive_of_a_mesh(tmp_path):
    write_mesh(box(), tmp_path / "box.usdz")
    write_mesh(box(), tmp_path / "again.usdz")
    assert (tmp_path / "box.usdz").read_bytes() == (tmp_path / "again.usdz").read_bytes()
    with zipfile.ZipFile(tmp_path / "box.usdz") as archive:
        assert archive.namelist() == ["scene.usda", PICTURE]  # the scene comes first
        assert archive.read("scene.usda").startswith(b"#usda 1.0\n")
        picture = np.asarray(Image.open(io.BytesIO(archive.read(PICTURE))))
    assert np.array_equal(picture, to_uint8(box().texture))


def test_scene_as_read_by_usd(tmp_path):
    mesh = box().with_normals()
    write_mesh(mesh, tmp_path / "box.usdz")
    stage = opened(tmp_path / "box.usdz")
    from pxr import Usd, UsdGeom, UsdShade

    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert stage.GetDefaultPrim().GetPath() == "/object"
    prim = UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))
    assert np.array_equal(np.array(prim.GetPointsAttr().Get()), mesh.vertices.numpy())  # to the last bit
    assert np.array_equal(np.array(prim.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), mesh.faces.numpy())
    assert set(prim.GetFaceVertexCountsAttr().Get()) == {3}
    assert prim.GetSubdivisionSchemeAttr().Get() == "none" and prim.GetDoubleSidedAttr().Get()
    assert prim.GetOrientationAttr().Get() == "rightHanded"  # counter-clockwise from outside
    assert np.allclose(np.array(prim.GetNormalsAttr().Get()), mesh.normals.numpy(), atol=1e-6)
    assert prim.GetNormalsInterpolation() == "vertex"
    bound = UsdGeom.BBoxCache(Usd.TimeCode.Default(), ["default"]).ComputeWorldBound(prim.GetPrim()).GetRange()
    assert np.allclose([*bound.GetMin(), *bound.GetMax()], [*mesh.vertices.amin(0), *mesh.vertices.amax(0)])
    assert np.allclose(np.array(prim.GetExtentAttr().Get()), [[*bound.GetMin()], [*bound.GetMax()]])
    st = UsdGeom.PrimvarsAPI(prim).GetPrimvar("st")
    uvs = mesh.uvs.numpy() * [1, -1] + [0, 1]
    assert st.GetInterpolation() == "vertex" and np.allclose(np.array(st.Get()), uvs, atol=1e-7)

    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    surface, _, _ = material.ComputeSurfaceSource()
    assert surface.GetIdAttr().Get() == "UsdPreviewSurface"
    assert surface.GetInput("metallic").Get() == 0 and surface.GetInput("roughness").Get() == 1
    texture = UsdShade.Shader(surface.GetInput("diffuseColor").GetConnectedSources()[0][0].source.GetPrim())
    assert texture.GetIdAttr().Get() == "UsdUVTexture" and texture.GetInput("sourceColorSpace").Get() == "sRGB"
    assert texture.GetInput("wrapS").Get() == "clamp"
    reader = UsdShade.Shader(texture.GetInput("st").GetConnectedSources()[0][0].source.GetPrim())
    assert reader.GetIdAttr().Get() == "UsdPrimvarReader_float2" and reader.GetInput("varname").Get() == "st"
    from pxr import Ar

    asset = texture.GetInput("file").Get()
    data = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(asset.resolvedPath)).GetBuffer()
    pixels = np.asarray(Image.open(io.BytesIO(bytes(data))))
    assert np.array_equal(pixels, to_uint8(mesh.texture))


@pytest.mark.parametrize("mesh", [box, coloured])
def test_scene_passes_usds_own_checks(tmp_path, mesh):
    """All that the library knows to check, archive and materials included, of which some are Apple's demands."""
    pytest.importorskip("pxr.UsdValidation", reason="needs usd-core 25 or newer")
    write_mesh(mesh(), tmp_path / "mesh.usdz")
    stage = opened(tmp_path / "mesh.usdz")
    from pxr import UsdValidation

    checks = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(checks) > 10
    assert [e.GetErrorAsString() for e in UsdValidation.ValidationContext(checks).Validate(stage)] == []


def test_vertex_colours_are_linear(tmp_path):
    mesh = coloured()
    write_mesh(mesh, tmp_path / "mesh.usdz")
    stage = opened(tmp_path / "mesh.usdz")
    from pxr import UsdGeom, UsdShade

    prim = UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))
    assert np.array_equal(np.array(prim.GetPointsAttr().Get()), mesh.vertices.numpy())
    colours = UsdGeom.PrimvarsAPI(prim).GetPrimvar("displayColor")
    assert np.allclose(np.array(colours.Get()), srgb_to_linear(mesh.colors).numpy(), atol=1e-6)
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    surface, _, _ = material.ComputeSurfaceSource()
    reader = UsdShade.Shader(surface.GetInput("diffuseColor").GetConnectedSources()[0][0].source.GetPrim())
    assert reader.GetInput("varname").Get() == "displayColor"


def test_plain_mesh_is_grey(tmp_path):
    mesh = Mesh(coloured().vertices, coloured().faces)
    write_mesh(mesh, tmp_path / "mesh.usdz")
    stage = opened(tmp_path / "mesh.usdz")
    from pxr import UsdShade

    surface = UsdShade.Shader(stage.GetPrimAtPath("/object/material/surface"))
    assert np.allclose(surface.GetInput("diffuseColor").Get(), 0.8)


def test_repeating_texture_coordinates(tmp_path):
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), uvs=torch.eye(3)[:, :2] * 2, texture=torch.rand(4, 4, 3))
    write_mesh(mesh, tmp_path / "mesh.usdz")
    stage = opened(tmp_path / "mesh.usdz")
    from pxr import UsdShade

    assert UsdShade.Shader(stage.GetPrimAtPath("/object/material/picture")).GetInput("wrapT").Get() == "repeat"


def test_bad_meshes_and_reading_are_refused(tmp_path):
    with pytest.raises(MeshError, match="no triangles"):
        write_mesh(Mesh(torch.zeros(3, 3), torch.zeros(0, 3).long()), tmp_path / "a.usdz")
    broken = coloured()
    broken.vertices[2, 1] = torch.nan
    with pytest.raises(MeshError, match="NaN"):
        write_mesh(broken, tmp_path / "a.usdz")
    assert not list(tmp_path.iterdir())
    write_mesh(coloured(), tmp_path / "a.usdz")
    with pytest.raises(MeshError, match=r"known are \.glb, \.gltf, \.obj, \.ply"):
        read_mesh(tmp_path / "a.usdz")
    with pytest.raises(OutputError, match=r"\.usdz"):
        write_mesh(coloured(), tmp_path / "a.fbx")


def test_command_line_converts(tmp_path, capsys):
    write_glb(box(), tmp_path / "box.glb")
    assert main(["convert", str(tmp_path / "box.glb"), str(tmp_path / "box.usdz")]) == 0
    assert zipfile.is_zipfile(tmp_path / "box.usdz")
    assert main(["convert", str(tmp_path / "box.usdz"), str(tmp_path / "again.glb")]) != 0
    assert "cannot convert .usdz" in capsys.readouterr().err
