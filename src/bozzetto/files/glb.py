"""Writing a mesh as binary glTF 2.0 (``.glb``): one triangle primitive, one material, everything in one file.

Source: the glTF 2.0 specification (Khronos Group). Vertex colours are linear in glTF and sRGB here; the base-colour
picture is sRGB in both.
"""

from __future__ import annotations

import io
import json
import struct
from os import PathLike

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import __version__
from ..errors import MeshError
from ..mesh import Mesh
from .atomic import atomic_write_bytes
from .images import to_uint8

MAGIC, JSON_CHUNK, BIN_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
FLOAT, UINT16, UINT32 = 5126, 5123, 5125
VERTICES, INDICES = 34962, 34963  # targets of a buffer view
LINEAR, MIPMAPPED, CLAMP, REPEAT = 9729, 9987, 33071, 10497


def srgb_to_linear(value: Tensor) -> Tensor:
    """sRGB 0..1 -> linear light 0..1 (IEC 61966-2-1)."""
    return torch.where(value <= 0.04045, value / 12.92, ((value.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: Tensor) -> Tensor:
    """Linear light 0..1 -> sRGB 0..1 (IEC 61966-2-1)."""
    return torch.where(value <= 0.0031308, value * 12.92, 1.055 * value.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def check_mesh(mesh: Mesh, path: str | PathLike[str]) -> None:
    """Refuse to write what no reader can use: no triangles, or positions that are not finite."""
    if not len(mesh.faces):
        raise MeshError(f"cannot write {path}: the mesh has no triangles (the surface is empty)")
    bad = int((~torch.isfinite(mesh.vertices)).any(dim=-1).sum())
    if bad:
        raise MeshError(f"cannot write {path}: {bad:,} of {len(mesh.vertices):,} vertices are NaN or infinite")


def write_glb(mesh: Mesh, path: str | PathLike[str], texture_format: str = "png") -> None:
    """Write ``mesh`` as a ``.glb`` file, atomically.

    The texture is embedded as "png" (lossless) or "jpeg" (smaller). Where there is a texture, vertex colours are left
    out: glTF would multiply the two. The material is not metallic, fully rough and seen from both sides.

    Raises:
        MeshError: the mesh has no triangles, or positions are NaN or infinite.
        OutputError: the file cannot be written.
    """
    if texture_format not in ("png", "jpeg"):
        raise ValueError(f"texture_format must be 'png' or 'jpeg', got {texture_format!r}")
    check_mesh(mesh, path)
    atomic_write_bytes(path, encode_glb(mesh, texture_format))


def encode_glb(mesh: Mesh, texture_format: str = "png") -> bytes:
    """The bytes of the ``.glb`` file."""
    buffer = bytearray()
    views: list[dict] = []
    accessors: list[dict] = []

    def add_view(data: bytes, target: int | None = None) -> int:
        buffer.extend(bytes(-len(buffer) % 4))
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(data)})
        if target is not None:
            views[-1]["target"] = target
        buffer.extend(data)
        return len(views) - 1

    def add_accessor(values: np.ndarray, component: int, kind: str, target: int, bounds: bool = False) -> int:
        view = add_view(np.ascontiguousarray(values).tobytes(), target)
        accessors.append({"bufferView": view, "componentType": component, "count": len(values), "type": kind})
        if bounds:
            accessors[-1] |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return len(accessors) - 1

    def floats(values: Tensor) -> np.ndarray:
        return values.detach().cpu().numpy().astype("<f4")

    attributes = {"POSITION": add_accessor(floats(mesh.vertices), FLOAT, "VEC3", VERTICES, bounds=True)}
    if mesh.normals is not None:
        attributes["NORMAL"] = add_accessor(floats(unit_normals(mesh.normals)), FLOAT, "VEC3", VERTICES)
    material: dict = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}
    document: dict = {}
    if mesh.uvs is not None:
        attributes["TEXCOORD_0"] = add_accessor(floats(torch.nan_to_num(mesh.uvs)), FLOAT, "VEC2", VERTICES)
    if mesh.texture is not None:
        inside = bool((mesh.uvs >= 0).all() and (mesh.uvs <= 1).all())
        wrap = CLAMP if inside else REPEAT
        view = add_view(encode_texture(mesh.texture, texture_format))
        document["images"] = [{"bufferView": view, "mimeType": f"image/{texture_format}"}]
        document["samplers"] = [{"magFilter": LINEAR, "minFilter": MIPMAPPED, "wrapS": wrap, "wrapT": wrap}]
        document["textures"] = [{"source": 0, "sampler": 0}]
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    elif mesh.colors is not None:
        linear = srgb_to_linear(torch.nan_to_num(mesh.colors).clamp(0, 1))
        attributes["COLOR_0"] = add_accessor(floats(linear), FLOAT, "VEC3", VERTICES)
    # The largest 16-bit index is reserved (primitive restart).
    small = len(mesh.vertices) <= 65535
    flat = mesh.faces.cpu().numpy().reshape(-1).astype("<u2" if small else "<u4")  # [3 F]
    indices = add_accessor(flat, UINT16 if small else UINT32, "SCALAR", INDICES)
    buffer.extend(bytes(-len(buffer) % 4))
    document = {
        "asset": {"version": "2.0", "generator": f"bozzetto {__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "object"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0, "mode": 4}]}],
        "materials": [material],
        **document,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(buffer)}],
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("utf-8")
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", len(buffer), BIN_CHUNK) + buffer
    return struct.pack("<4sII", MAGIC, 2, 12 + len(chunks)) + chunks


def unit_normals(normals: Tensor) -> Tensor:
    """Normals of length one, as glTF demands; those without a direction point up."""
    normals = torch.nan_to_num(normals.detach().float())
    length = normals.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, normals / length.clamp_min(1e-12), normals.new_tensor([0.0, 1.0, 0.0]))


def encode_texture(texture: Tensor, kind: str = "png") -> bytes:
    """A [H, W, 3] picture (sRGB 0..1) as the bytes of a PNG or JPEG file."""
    out = io.BytesIO()
    options = {"quality": 92, "subsampling": 0} if kind == "jpeg" else {"compress_level": 6}
    Image.fromarray(to_uint8(texture)).save(out, format=kind, **options)
    return out.getvalue()
