"""Reading glTF 2.0, binary or as text with files beside it: every triangle of a scene, moved into place, as one mesh.

Reads several nodes, primitives and materials, strips and fans, integer and sparse accessors, pictures inside the file and beside
it, and KHR_texture_transform. Lights, cameras, animations, skins and all of the material but the base colour are passed over.
"""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from os import PathLike
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError, MeshError
from ..gaussians import quaternion_to_matrix
from ..mesh import Mesh
from .glb import BIN_CHUNK, CLAMP, JSON_CHUNK, MAGIC
from .images import decode_image
from .inputs import read_input
from .mesh_parts import Part, join_parts

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_SUPPORTED = {"KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp", "KHR_materials_unlit"}
_SHAPE_CHANGING = {"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu"}


def read_glb(path: str | PathLike[str]) -> Mesh:
    """Read a ``.glb`` or ``.gltf`` file as one mesh in the axes of its scene (y up).

    Several materials are joined into one texture atlas, or into vertex colours if none has a picture.

    Raises:
        MeshError: missing, empty, truncated or malformed file, or one beside it that it names; no triangles; or an extension that
            is needed to read it is not supported (compressed geometry or pictures).
    """
    data = read_input(path, "a .glb or .gltf file", MeshError)
    try:
        return join_parts(_Reader(*_split(data), Path(path).parent).parts())
    except (MeshError, ImageError) as problem:
        raise MeshError(f"{path}: {problem}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error) as problem:
        raise MeshError(f"{path} is malformed glTF ({type(problem).__name__}: {problem})") from problem


def _split(data: bytes) -> tuple[dict, bytes]:
    """(document, binary chunk) of a binary file, or of a text one, which has no such chunk."""
    if data[:16].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        document = json.loads(data.decode("utf-8-sig"))
        version = str(document.get("asset", {}).get("version", ""))
        if not version.startswith("2"):
            raise MeshError(f"it is glTF {version or 'of no stated version'}; only version 2 is read")
        return document, b""
    if data[:4] != MAGIC:
        raise MeshError("it is neither a .glb file (which starts with 'glTF') nor a .gltf file (which starts with '{')")
    if len(data) < 20:
        raise MeshError("the file is truncated")
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise MeshError(f"it is glTF {version}; only version 2 is read")
    if length > len(data):
        raise MeshError(f"the file is truncated: its header promises {length:,} bytes, it has {len(data):,}")
    document, binary, offset = None, b"", 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        chunk = data[offset + 8 : offset + 8 + size]
        if len(chunk) < size:
            raise MeshError("the file is truncated inside a chunk")
        if kind == JSON_CHUNK and document is None:
            document = json.loads(chunk.decode("utf-8"))
        elif kind == BIN_CHUNK and not binary:
            binary = chunk
        offset += 8 + size
    if not isinstance(document, dict):
        raise MeshError("the file has no JSON part")
    return document, binary


class _Reader:
    def __init__(self, document: dict, binary: bytes, folder: Path) -> None:
        self.document, self.binary, self.folder = document, binary, folder
        unknown = sorted(set(document.get("extensionsRequired", ())) - _SUPPORTED)
        if any(name in _SHAPE_CHANGING for name in unknown):
            raise MeshError(f"it needs {', '.join(unknown)}, which is not supported; export it without compression")
        self.buffers: dict[int, bytes] = {}
        self.textures: dict[int, Tensor] = {}

    # ---- bytes and numbers ----

    def buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            entry = self.document["buffers"][index]
            self.buffers[index] = self.resource(entry["uri"]) if "uri" in entry else self.binary
            if len(self.buffers[index]) < entry["byteLength"]:
                raise MeshError(f"buffer {index} is shorter than it says; the file is truncated")
        return self.buffers[index]

    def resource(self, uri: str) -> bytes:
        """What a buffer or picture is given by: a data URI, or the name of a file beside this one."""
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
        for name in (unquote(uri), uri):  # some exporters leave names unquoted
            name = name.replace("\\", "/")
            if urlsplit(name).scheme or name.startswith("/"):
                raise MeshError(
                    f"it refers to {name[:80]}, which is not a file beside it; pack everything into one .glb"
                )
            with contextlib.suppress(OSError):  # a name that is too long to be one
                if (self.folder / name).is_file():
                    return read_input(self.folder / name, "a part of a .gltf file", MeshError)
        raise MeshError(f"it refers to {unquote(uri)[:80]}, which is not beside it; copy the whole folder")

    def encoded_picture(self, image: dict) -> tuple[bytes, str]:
        """The bytes of a picture file, and what to call it."""
        if "bufferView" in image:
            return bytes(self.view(image["bufferView"])), "an embedded picture"
        uri = image["uri"]
        return self.resource(uri), "an embedded picture" if uri.startswith("data:") else unquote(uri)

    def view(self, index: int) -> memoryview:
        entry = self.document["bufferViews"][index]
        data, start = self.buffer(entry["buffer"]), entry.get("byteOffset", 0)
        if start < 0 or start + entry["byteLength"] > len(data):
            raise MeshError(f"buffer view {index} reaches beyond its buffer")
        return memoryview(data)[start : start + entry["byteLength"]]

    def _numbers(self, view: int, offset: int, kind: str, count: int, width: int, packed: bool = False) -> np.ndarray:
        data, size = self.view(view), np.dtype(kind).itemsize
        stride = 0 if packed else self.document["bufferViews"][view].get("byteStride", 0)
        stride = stride or size * width
        if count < 0 or offset < 0 or (count and offset + stride * (count - 1) + size * width > len(data)):
            raise MeshError("an accessor reaches beyond its buffer view")
        return np.ndarray((count, width), kind, data, offset, (stride, size)).copy() if count else np.empty((0, width))

    def accessor(self, index: int) -> np.ndarray:
        """[count, width] float32 (integers that are normalised become 0..1 or -1..1), or int64 for plain integers."""
        entry = self.document["accessors"][index]
        kind, width, count = _COMPONENTS[entry["componentType"]], _WIDTHS[entry["type"]], int(entry["count"])
        if "bufferView" in entry:
            values = self._numbers(entry["bufferView"], entry.get("byteOffset", 0), kind, count, width)
        else:
            if count > 10_000_000:
                raise MeshError(f"an accessor of {count:,} entries without data")
            values = np.zeros((count, width), kind)
        if "sparse" in entry:
            sparse, n = entry["sparse"], int(entry["sparse"]["count"])
            where, what = sparse["indices"], sparse["values"]
            place = self._numbers(
                where["bufferView"], where.get("byteOffset", 0), _COMPONENTS[where["componentType"]], n, 1, packed=True
            )
            values[place[:, 0].astype(np.int64)] = self._numbers(
                what["bufferView"], what.get("byteOffset", 0), kind, n, width, packed=True
            )
        if kind == "<f4":
            return values.astype(np.float32)
        if entry.get("normalized"):
            return np.maximum(values.astype(np.float32) / np.iinfo(kind[1:]).max, -1.0)
        return values.astype(np.int64)

    def floats(self, index: int, width: int) -> Tensor:
        """The first ``width`` columns of an accessor, finite, as a float32 tensor."""
        values = self.accessor(index)
        if values.shape[1] < width:
            raise MeshError(f"an attribute has {values.shape[1]} components where {width} are needed")
        if not np.isfinite(values).all():
            raise MeshError("a vertex attribute is NaN or infinite")
        return torch.from_numpy(values[:, :width].astype(np.float32))

    # ---- scene ----

    def parts(self) -> list[Part]:
        nodes = self.document.get("nodes", [])
        scenes = self.document.get("scenes")
        if scenes:
            roots = scenes[self.document.get("scene", 0)].get("nodes", [])
        else:
            children = {c for node in nodes for c in node.get("children", ())}
            roots = [i for i in range(len(nodes)) if i not in children]
        out: list[Part] = []
        todo = [(root, torch.eye(4, dtype=torch.float64)) for root in reversed(roots)]
        visits = 0
        while todo:
            index, parent = todo.pop()
            visits += 1
            if visits > len(nodes):
                raise MeshError("a node has two parents or is its own ancestor")
            node = nodes[index]
            matrix = parent @ _node_matrix(node)
            if "mesh" in node:
                # The nodes above a skinned mesh do not move it.
                place = torch.eye(4, dtype=torch.float64) if "skin" in node else matrix
                for primitive in self.document["meshes"][node["mesh"]]["primitives"]:
                    part = self.part(primitive, place)
                    if part is not None:
                        out.append(part)
            todo += [(child, matrix) for child in reversed(node.get("children", ()))]
        return out

    def part(self, primitive: dict, matrix: Tensor) -> Part | None:
        """One primitive moved by ``matrix`` [4, 4]; None for points and lines."""
        mode, attributes = primitive.get("mode", 4), primitive["attributes"]
        if mode not in (4, 5, 6) or "POSITION" not in attributes:
            return None
        vertices = self.floats(attributes["POSITION"], 3)
        count = len(vertices)
        if "indices" in primitive:
            index = torch.from_numpy(self.accessor(primitive["indices"])[:, 0].astype(np.int64))
        else:
            index = torch.arange(count)
        faces = _triangles(index, mode)
        if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= count):
            raise MeshError(f"a triangle names a vertex outside 0..{count - 1}")
        material = self.document["materials"][primitive["material"]] if "material" in primitive else {}
        info, factor = base_colour(material)
        base = torch.tensor(factor, dtype=torch.float32)[:3]
        texture = uvs = None
        transform = (info or {}).get("extensions", {}).get("KHR_texture_transform", {})
        name = f"TEXCOORD_{transform.get('texCoord', (info or {}).get('texCoord', 0))}"
        if name in attributes:
            uvs = self.floats(attributes[name], 2)
            if info is not None:
                texture, clamps = self.texture(info["index"])
                uvs = _texture_transform(uvs, transform)
                uvs = torch.where(torch.tensor(clamps), uvs.clamp(0, 1), uvs)
        normals = self.floats(attributes["NORMAL"], 3) if "NORMAL" in attributes else None
        colors = self.floats(attributes["COLOR_0"], 3) if "COLOR_0" in attributes else None
        for values, what in ((normals, "normals"), (uvs, "texture coordinates"), (colors, "colours")):
            if values is not None and len(values) != count:
                raise MeshError(f"{len(values)} {what} for {count} vertices")
        axes = matrix[:3, :3]
        vertices = (vertices.double() @ axes.T + matrix[:3, 3]).float()
        determinant = float(torch.linalg.det(axes))
        if normals is not None:
            normals = None if determinant == 0 else normals.double() @ torch.linalg.inv(axes)
            normals = None if normals is None else torch.nn.functional.normalize(normals, dim=-1).float()
        if determinant < 0:
            faces = faces.flip(-1)
        return Part(vertices, faces, normals, uvs, colors, base, texture)

    def texture(self, index: int) -> tuple[Tensor, list[bool]]:
        """Picture [H, W, 3] and whether it is clamped along u and v."""
        entry = self.document["textures"][index]
        sampler = self.document["samplers"][entry["sampler"]] if "sampler" in entry else {}
        source = entry.get("extensions", {}).get("EXT_texture_webp", {}).get("source", entry.get("source"))
        if source is None:
            raise MeshError("a texture has no picture in a format that is supported (PNG, JPEG, WebP)")
        if source not in self.textures:
            picture = decode_image(*self.encoded_picture(self.document["images"][source]))
            self.textures[source] = picture[..., :3].contiguous()
        return self.textures[source], [sampler.get("wrapS") == CLAMP, sampler.get("wrapT") == CLAMP]


def base_colour(material: dict) -> tuple[dict | None, list[float]]:
    """What a material's texture is (index and coordinates), and the linear RGBA that it is multiplied by.

    Of the older KHR_materials_pbrSpecularGlossiness the diffuse colour is taken, where there is no other texture.
    """
    look = material.get("pbrMetallicRoughness", {})
    info, factor = look.get("baseColorTexture"), look.get("baseColorFactor")
    old = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if old is not None and info is None:
        info, factor = old.get("diffuseTexture"), old.get("diffuseFactor", factor)
    return info, factor or [1.0] * 4


def _node_matrix(node: dict) -> Tensor:
    if "matrix" in node:
        return torch.tensor(node["matrix"], dtype=torch.float64).reshape(4, 4).T  # stored column by column
    out = torch.eye(4, dtype=torch.float64)
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    rotation = quaternion_to_matrix(torch.tensor([w, x, y, z], dtype=torch.float64))
    out[:3, :3] = rotation * torch.tensor(node.get("scale", (1, 1, 1)), dtype=torch.float64)
    out[:3, 3] = torch.tensor(node.get("translation", (0, 0, 0)), dtype=torch.float64)
    return out


def _triangles(index: Tensor, mode: int) -> Tensor:
    """[F, 3] from the indices of triangles (4), a strip (5) or a fan (6)."""
    if mode == 4:
        return index[: len(index) // 3 * 3].reshape(-1, 3)
    if len(index) < 3:
        return index.new_zeros(0, 3)
    if mode == 6:
        return torch.stack([index[1:-1], index[2:], index[:1].expand(len(index) - 2)], dim=-1)
    faces = torch.stack([index[:-2], index[1:-1], index[2:]], dim=-1)
    faces[1::2] = faces[1::2][:, [1, 0, 2]]  # every second triangle of a strip runs backwards
    return faces


def _texture_transform(uvs: Tensor, transform: dict) -> Tensor:
    if not transform:
        return uvs
    angle = torch.tensor(float(transform.get("rotation", 0.0)))
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = (uvs * torch.tensor(transform.get("scale", [1.0, 1.0]), dtype=torch.float32)).unbind(-1)
    turned = torch.stack([cos * u + sin * v, cos * v - sin * u], dim=-1)
    return turned + torch.tensor(transform.get("offset", [0.0, 0.0]), dtype=torch.float32)
