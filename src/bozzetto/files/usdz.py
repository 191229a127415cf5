"""Writing a mesh as ``.usdz``, the format of AR on Apple's devices: a scene in Universal Scene Description and its picture.

Sources: the USDZ file format specification (a zip without compression whose files begin at multiples of 64 bytes, the scene
first) and the UsdPreviewSurface specification. The scene is USD's text form. USD puts (0, 0) of a texture at the bottom-left
corner; v is flipped. Vertex colours are linear in USD and sRGB here. The world is y up, one unit a metre, as in glTF.
"""

from __future__ import annotations

import struct
import zlib
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..mesh import Mesh
from .atomic import atomic_write_bytes
from .glb import check_mesh, encode_texture, srgb_to_linear, unit_normals

ALIGNMENT = 64
PADDING = 0x1986  # a zip extra field that readers skip
DATE = 0x0021  # 1 January 1980: the same mesh gives the same bytes
PICTURE = "textures/base_color.png"


def write_usdz(mesh: Mesh, path: str | PathLike[str]) -> None:
    """Write ``mesh`` as a ``.usdz`` file, atomically.

    Where there is a texture, vertex colours are left out. The material is not metallic, fully rough and seen from both sides.

    Raises:
        MeshError: the mesh has no triangles, or positions are NaN or infinite.
        OutputError: the file cannot be written.
    """
    check_mesh(mesh, path)
    files = {"scene.usda": scene(mesh).encode("utf-8")}
    if mesh.texture is not None:
        files[PICTURE] = encode_texture(mesh.texture)
    atomic_write_bytes(path, aligned_zip(files))


def scene(mesh: Mesh) -> str:
    """The mesh and its material as the text of a ``.usda`` file; its picture is expected at ``PICTURE`` beside it."""
    corners = torch.stack([mesh.vertices.amin(0), mesh.vertices.amax(0)])
    counts = ", ".join(["3"] * len(mesh.faces))
    indices = ", ".join(map(str, mesh.faces.reshape(-1).tolist()))
    lines = [
        "#usda 1.0",
        "(",
        '    defaultPrim = "object"',
        f'    doc = "bozzetto {__version__}"',
        "    metersPerUnit = 1",
        '    upAxis = "Y"',
        ")",
        "",
        'def Xform "object" (',
        '    kind = "component"',
        ")",
        "{",
        '    def Mesh "mesh" (',
        '        prepend apiSchemas = ["MaterialBindingAPI"]',
        "    )",
        "    {",
        "        uniform bool doubleSided = 1",
        f"        float3[] extent = {_tuples(corners)}",
        f"        int[] faceVertexCounts = [{counts}]",
        f"        int[] faceVertexIndices = [{indices}]",
        "        rel material:binding = </object/material>",
        f"        point3f[] points = {_tuples(mesh.vertices)}",
        '        uniform token subdivisionScheme = "none"',
    ]
    if mesh.normals is not None:
        lines += _per_vertex("normal3f[] normals", unit_normals(mesh.normals))
    if mesh.uvs is not None:
        uvs = torch.nan_to_num(mesh.uvs)
        lines += _per_vertex("texCoord2f[] primvars:st", torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=-1))
    if mesh.texture is None and mesh.colors is not None:
        colors = srgb_to_linear(torch.nan_to_num(mesh.colors).clamp(0, 1))
        lines += _per_vertex("color3f[] primvars:displayColor", colors)
    return "\n".join([*lines, "    }", "", *_material(mesh), "}", ""])


def _tuples(values: Tensor) -> str:
    """[N, C] as a list of tuples, with the digits that give the same float32 back."""
    values = values.detach().cpu().numpy().astype(np.float64)
    row = "(" + ", ".join(["%.9g"] * values.shape[1]) + "), "
    return "[" + (row * len(values))[:-2] % tuple(values.reshape(-1).tolist()) + "]"


def _per_vertex(name: str, values: Tensor) -> list[str]:
    return [f"        {name} = {_tuples(values)} (", '            interpolation = "vertex"', "        )"]


def _material(mesh: Mesh) -> list[str]:
    """A UsdPreviewSurface that takes its colour from the picture, the vertices, or is light grey."""
    colour = "color3f inputs:diffuseColor = (0.8, 0.8, 0.8)"
    shaders: list[str] = []
    if mesh.texture is not None:
        inside = bool((mesh.uvs >= 0).all() and (mesh.uvs <= 1).all())
        wrap = "clamp" if inside else "repeat"
        colour = "color3f inputs:diffuseColor.connect = </object/material/picture.outputs:rgb>"
        shaders = _shader(
            "picture",
            "UsdUVTexture",
            f"asset inputs:file = @{PICTURE}@",
            'token inputs:sourceColorSpace = "sRGB"',
            "float2 inputs:st.connect = </object/material/coordinates.outputs:result>",
            f'token inputs:wrapS = "{wrap}"',
            f'token inputs:wrapT = "{wrap}"',
            "float3 outputs:rgb",
        ) + _shader("coordinates", "UsdPrimvarReader_float2", 'string inputs:varname = "st"', "float2 outputs:result")
    elif mesh.colors is not None:
        colour = "color3f inputs:diffuseColor.connect = </object/material/colours.outputs:result>"
        varname = 'string inputs:varname = "displayColor"'
        shaders = _shader("colours", "UsdPrimvarReader_float3", varname, "float3 outputs:result")
    surface = ("float inputs:metallic = 0", "float inputs:roughness = 1", "token outputs:surface")
    return [
        '    def Material "material"',
        "    {",
        "        token outputs:surface.connect = </object/material/surface.outputs:surface>",
        *_shader("surface", "UsdPreviewSurface", colour, *surface),
        *shaders,
        "    }",
    ]


def _shader(name: str, kind: str, *lines: str) -> list[str]:
    body = [f'uniform token info:id = "{kind}"', *lines]
    return ["", f'        def Shader "{name}"', "        {", *(f"            {line}" for line in body), "        }"]


def aligned_zip(files: dict[str, bytes]) -> bytes:
    """A zip archive without compression in which the contents of every file begin at a multiple of 64 bytes."""
    body, directory = bytearray(), bytearray()
    for name, data in files.items():
        path = name.encode("ascii")
        offset = len(body)
        padding = -(offset + 30 + len(path)) % ALIGNMENT
        padding += ALIGNMENT if 0 < padding < 4 else 0  # a field has a head of four bytes
        extra = struct.pack("<HH", PADDING, padding - 4) + bytes(padding - 4) if padding else b""
        # Version, flags, method (stored), time, date, checksum, sizes.
        common = struct.pack("<HHHHHIII", 20, 0, 0, 0, DATE, zlib.crc32(data), len(data), len(data))
        body += struct.pack("<I", 0x04034B50) + common + struct.pack("<HH", len(path), len(extra)) + path + extra + data
        directory += struct.pack("<IH", 0x02014B50, 20) + common
        directory += struct.pack("<HHHHHII", len(path), 0, 0, 0, 0, 0, offset) + path
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(files), len(files), len(directory), len(body), 0)
    return bytes(body + directory + end)
