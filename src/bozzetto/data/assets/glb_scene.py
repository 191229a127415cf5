"""A glTF file (.glb, or .gltf with files beside it) as a :class:`SourceObject`.

Read are parts, pictures with alpha, skins, morph targets, and animations of them.
Every node that carries triangles, and every joint of a skin, becomes a joint of the object, so that skinned characters and
mechanical ones (moving nodes) are played in the same way. Not read: lights, cameras, the material's other maps (roughness,
normals), texture animation.
"""

from __future__ import annotations

import struct
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import ImageError, MeshError
from ...files.glb import linear_to_srgb
from ...files.glb_read import _node_matrix, _Reader, _split, _texture_transform, _triangles, base_colour
from ...files.images import decode_image
from ...files.inputs import read_input
from .clip_blob import quaternions_to_rotations
from .glb_morph import MOST_NUMBERS, Morph, morphed_clip, read_morph
from .source_object import Clip, Part, SourceObject

SAMPLE_FPS = 30.0
LONGEST = 20.0  # seconds of a clip that are kept
LEAST_OPACITY = 0.15  # panes of glass that let more light through are left out
_MOST_JOINTS = 4096


def read_glb_scene(path: str | PathLike[str], source: str = "", name: str = "") -> SourceObject:
    """One object of all triangles of the scene, in glTF's axes (y up, front +z).

    Raises:
        MeshError: missing, truncated or malformed file, or one beside it; or compressed geometry or pictures.
    """
    data = read_input(path, "a .glb or .gltf file", MeshError)
    try:
        return _Scene(*_split(data), Path(path).parent).object(source, name)
    except (MeshError, ImageError) as problem:
        raise MeshError(f"{path}: {problem}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error, RecursionError) as problem:
        raise MeshError(f"{path} is malformed glTF ({type(problem).__name__}: {problem})") from problem


class _Scene(_Reader):
    def __init__(self, document: dict, binary: bytes, folder: Path) -> None:
        super().__init__(document, binary, folder)
        self.nodes: list[dict] = document.get("nodes", [])
        self.parents = np.full(len(self.nodes), -1)
        for i, node in enumerate(self.nodes):
            for child in node.get("children", ()):
                if self.parents[child] >= 0 or child == i:
                    raise MeshError("a node has two parents or is its own ancestor")
                self.parents[child] = i
        self.order = self._order()
        self.pictures: list[NDArray[np.uint8]] = []
        self._picture_of: dict[int, int] = {}

    def _order(self) -> list[int]:
        """Node numbers of the scene, parents before children."""
        scenes = self.document.get("scenes")
        if scenes:
            todo = list(scenes[self.document.get("scene", 0)].get("nodes", []))
        else:
            todo = [i for i, p in enumerate(self.parents) if p < 0]
        out: list[int] = []
        while todo:
            out.append(todo.pop())
            todo += self.nodes[out[-1]].get("children", ())
            if len(out) > len(self.nodes):
                raise MeshError("a node is its own ancestor")
        return out

    # ---- places

    def worlds(self, local: NDArray) -> NDArray[np.float64]:
        """[T, N, 4, 4] local matrices -> in the scene; nodes outside the scene keep the identity."""
        out = np.broadcast_to(np.eye(4), local.shape).copy()
        for i in self.order:
            parent = self.parents[i]
            out[:, i] = local[:, i] if parent < 0 else out[:, parent] @ local[:, i]
        return out

    def rest(self) -> NDArray[np.float64]:
        """[1, N, 4, 4]."""
        return np.stack([_node_matrix(n).numpy() for n in self.nodes])[None] if self.nodes else np.zeros((1, 0, 4, 4))

    def object(self, source: str, name: str) -> SourceObject:
        world = self.worlds(self.rest())[0]
        parts: list[Part] = []
        morphs: list[Morph | None] = []
        joints: list[tuple[int, NDArray]] = []  # (node, its inverse bind matrix: object space at rest -> the joint's)
        problems: list[str] = []
        first_of: dict[tuple, int] = {}
        for i in self.order:
            node = self.nodes[i]
            if "mesh" not in node:
                continue
            skin = node.get("skin")
            key = ("node", i) if skin is None else ("skin", skin)
            if key not in first_of:
                first_of[key] = len(joints)
                joints += [(i, np.linalg.pinv(world[i]))] if skin is None else self._skin(skin, world)
            place = world[i] if skin is None else self._bind_place(skin, world)
            for primitive in self.document["meshes"][node["mesh"]]["primitives"]:
                part = self.look(primitive, place, first_of[key], skin is not None, problems)
                if part is not None:
                    parts.append(part)
                    morphs.append(read_morph(self, i, primitive, place, part.vertices))
                    if morphs[-1] is not None:
                        part.vertices = morphs[-1].shape(morphs[-1].weights)
        if len(joints) > _MOST_JOINTS:
            raise MeshError(f"it has {len(joints)} joints; at most {_MOST_JOINTS} are read")
        clips = self.clips(joints, parts, morphs)
        if not any(c.matrices is not None for c in clips):
            for part in parts:
                part.joints = part.weights = None
        info = self.document.get("asset", {}).get("extras", {})
        info = info if isinstance(info, dict) else {}
        return SourceObject(
            source,
            name,
            name,
            parts,
            self.pictures,
            clips,
            caption=str(info.get("title", "")),
            licence=str(info.get("license", "")),
            author=str(info.get("author", "")),
            problems=tuple(problems),
        )

    def _inverse_binds(self, skin: int) -> tuple[list[int], NDArray[np.float64]]:
        entry = self.document["skins"][skin]
        nodes = entry["joints"]
        if "inverseBindMatrices" not in entry:
            return nodes, np.broadcast_to(np.eye(4), (len(nodes), 4, 4))
        stored = self.floats(entry["inverseBindMatrices"], 16).numpy().astype(np.float64)
        return nodes, stored[: len(nodes)].reshape(-1, 4, 4).transpose(0, 2, 1)  # stored column by column

    def _bind_place(self, skin: int, world: NDArray) -> NDArray[np.float64]:
        """Mesh space of a skin -> object space, such that the first joint's binding is where it rests."""
        nodes, inverse = self._inverse_binds(skin)
        return world[nodes[0]] @ inverse[0]

    def _skin(self, skin: int, world: NDArray) -> list[tuple[int, NDArray]]:
        nodes, inverse = self._inverse_binds(skin)
        back = np.linalg.pinv(self._bind_place(skin, world))
        return [(node, matrix @ back) for node, matrix in zip(nodes, inverse)]

    # ---- triangles and their look

    def look(self, primitive: dict, place: NDArray, first: int, skinned: bool, problems: list[str]) -> Part | None:
        """One primitive, moved by ``place``, whose joints count from ``first``."""
        mode, attributes = primitive.get("mode", 4), primitive["attributes"]
        if mode not in (4, 5, 6) or "POSITION" not in attributes:
            return None
        vertices = self.floats(attributes["POSITION"], 3).numpy().astype(np.float64)
        count = len(vertices)
        index = np.arange(count)
        if "indices" in primitive:
            index = self.accessor(primitive["indices"])[:, 0].astype(np.int64)
        faces = _triangles(torch.from_numpy(index), mode).numpy().astype(np.int32)
        if np.linalg.det(place[:3, :3]) < 0:
            faces = faces[:, ::-1]
        material = self.document["materials"][primitive["material"]] if "material" in primitive else {}
        info, factor = base_colour(material)
        if material.get("alphaMode") == "BLEND" and len(factor) > 3 and factor[3] < LEAST_OPACITY:
            return None
        base = np.array(factor[:3], np.float32)
        transform = (info or {}).get("extensions", {}).get("KHR_texture_transform", {})
        uvs = texture = None
        coordinates = f"TEXCOORD_{transform.get('texCoord', (info or {}).get('texCoord', 0))}"
        if info is not None and coordinates in attributes:
            try:
                texture = self.picture(info["index"])
            except (MeshError, ImageError) as problem:
                problems.append(f"missing texture: {problem}")
            uvs = _texture_transform(self.floats(attributes[coordinates], 2), transform).numpy()
        joints = np.full((count, 4), first, np.int32)
        weights = np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))
        if skinned and "JOINTS_0" in attributes and "WEIGHTS_0" in attributes:
            joints, weights = self._weights(attributes, first)
        colours = None
        if texture is None and "COLOR_0" in attributes:
            colours = (linear_to_srgb(self.floats(attributes["COLOR_0"], 3).clamp(0, 1)) * 255).round().byte().numpy()
        shade = linear_to_srgb(torch.from_numpy(base).clamp(0, 1)).tolist()
        return Part(
            (vertices @ place[:3, :3].T + place[:3, 3]).astype(np.float32),
            faces,
            uvs if texture is not None else None,
            texture,
            tuple(shade),
            {"MASK": "mask", "BLEND": "blend"}.get(material.get("alphaMode"), "opaque"),
            joints,
            weights,
            colours,
        )

    def _weights(self, attributes: dict, first: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The four largest of up to eight influences."""
        sets = [k for k in (0, 1) if f"JOINTS_{k}" in attributes and f"WEIGHTS_{k}" in attributes]
        joints = np.concatenate([self.accessor(attributes[f"JOINTS_{k}"]) for k in sets], 1).astype(np.int64)
        weights = np.concatenate([self.floats(attributes[f"WEIGHTS_{k}"], 4).numpy() for k in sets], 1)
        best = np.argsort(-weights, axis=1, kind="stable")[:, :4]
        joints, weights = np.take_along_axis(joints, best, 1), np.take_along_axis(weights, best, 1)
        total = weights.sum(1, keepdims=True)
        weights = np.where(total > 1e-8, weights / np.maximum(total, 1e-8), np.array([1, 0, 0, 0], np.float32))
        return (joints + first).astype(np.int32), weights.astype(np.float32)

    def picture(self, index: int) -> int:
        """The number among :attr:`pictures` of a texture."""
        entry = self.document["textures"][index]
        source = entry.get("extensions", {}).get("EXT_texture_webp", {}).get("source", entry.get("source"))
        if source is None:
            raise MeshError("a picture is in a format that is not supported (PNG, JPEG and WebP are)")
        if source not in self._picture_of:
            rgba = decode_image(*self.encoded_picture(self.document["images"][source]))
            self._picture_of[source] = len(self.pictures)
            self.pictures.append((rgba * 255).round().byte().numpy())
        return self._picture_of[source]

    # ---- motion

    def clips(self, joints: list[tuple[int, NDArray]], parts: list[Part], morphs: list[Morph | None]) -> list[Clip]:
        """Animations that move a joint or mix shapes, sampled at 30 frames per second."""
        mixing = {m.node: len(m.weights) for m in morphs if m is not None}
        animations = self.document.get("animations", [])
        by_place = any(
            c["target"].get("path") == "weights" and c["target"].get("node") in mixing
            for a in animations
            for c in a.get("channels", [])
        )
        nodes = np.array([n for n, _ in joints], int)
        inverse = np.stack([m for _, m in joints]) if joints else np.zeros((0, 4, 4))
        out = []
        for number, animation in enumerate(animations):
            channels = [self._channel(animation, c, mixing) for c in animation.get("channels", [])]
            channels = [c for c in channels if c is not None]
            last = min(max((c[2][-1] for c in channels), default=0.0), LONGEST)
            if last <= 0:
                continue
            count = max(2, round(last * SAMPLE_FPS) + 1)
            if by_place:
                count = max(2, min(count, MOST_NUMBERS // max(sum(len(p.vertices) for p in parts), 1)))
            times = np.linspace(0, last, count)
            posed = self.worlds(self._local(channels, times))[:, nodes] @ inverse  # [T, J, 4, 4]
            if not np.isfinite(posed).all():
                raise MeshError(f"animation {number} has numbers that are NaN or infinite")
            name = str(animation.get("name") or f"clip {number}")
            mixtures = {n: _sample(k, v, how, times, False) for n, path, k, v, how in channels if path == "weights"}
            if not any(np.abs(x - x[:1]).max(initial=0) >= 1e-5 for x in (posed, *mixtures.values())):
                continue
            if by_place:
                out.append(morphed_clip(name, times, parts, morphs, mixtures, posed))
            else:
                out.append(Clip(name, (len(times) - 1) / last, posed.astype(np.float32)))
        return out

    def _channel(
        self, animation: dict, channel: dict, mixing: dict[int, int]
    ) -> tuple[int, str, NDArray, NDArray, str] | None:
        """Node, path, key times [T], values [T, C] and interpolation; None for what is not played.

        Args:
            mixing: node with morph targets -> how many.
        """
        target, sampler = channel["target"], animation["samplers"][channel["sampler"]]
        path = target.get("path")
        node = target.get("node")
        if node is None or path not in ("translation", "rotation", "scale", "weights"):
            return None
        if path == "weights" and node not in mixing:
            return None
        times = self.accessor(sampler["input"])[:, 0].astype(np.float64)
        values = self.accessor(sampler["output"]).astype(np.float64)
        if path == "weights":  # stored one by one
            values = values[: len(values) // mixing[node] * mixing[node]].reshape(-1, mixing[node])
        how = sampler.get("interpolation", "LINEAR")
        rows = len(times) * (3 if how == "CUBICSPLINE" else 1)
        if not len(times) or len(values) < rows or (np.diff(times) < 0).any():
            raise MeshError("an animation's key frames are malformed")
        return node, path, times, values[:rows], how

    def _local(self, channels: list, times: NDArray) -> NDArray[np.float64]:
        """[T, N, 4, 4], the nodes' own matrices at ``times``."""
        out = np.repeat(self.rest(), len(times), 0)
        moved: dict[int, dict[str, NDArray]] = {}
        for node, path, keys, values, how in channels:
            if path == "weights":
                continue
            moved.setdefault(node, {})[path] = _sample(keys, values, how, times, path == "rotation")
        for i, tracks in moved.items():
            node = self.nodes[i]

            def track(name: str, default: tuple, node: dict = node, tracks: dict = tracks) -> NDArray:
                still = np.broadcast_to(np.array(node.get(name, default), np.float64), (len(times), len(default)))
                return tracks.get(name, still)

            turn = track("rotation", (0, 0, 0, 1))
            linear = quaternions_to_rotations(turn[:, [3, 0, 1, 2]]) * track("scale", (1, 1, 1))[:, None]
            out[:, i, :3, :3], out[:, i, :3, 3] = linear, track("translation", (0, 0, 0))
        return out


def _sample(keys: NDArray, values: NDArray, how: str, times: NDArray, quaternion: bool) -> NDArray[np.float64]:
    """Key frames at ``times`` [T] -> [T, C]; before the first and after the last they stand still."""
    if how == "CUBICSPLINE":
        values = values.reshape(len(keys), 3, -1)  # in-tangent, value, out-tangent
    after = np.searchsorted(keys, times, side="right")
    low, high = np.clip(after - 1, 0, len(keys) - 1), np.clip(after, 0, len(keys) - 1)
    span = np.maximum(keys[high] - keys[low], 1e-9)
    t = np.clip((times - keys[low]) / span, 0, 1)[:, None]
    if how == "STEP":
        return values[low]
    if how == "CUBICSPLINE":
        a, out_a, b, in_b = values[low, 1], values[low, 2], values[high, 1], values[high, 0]
        d = span[:, None]
        return (
            (2 * t**3 - 3 * t**2 + 1) * a
            + (t**3 - 2 * t**2 + t) * d * out_a
            + (3 * t**2 - 2 * t**3) * b
            + (t**3 - t**2) * d * in_b
        )
    a, b = values[low], values[high]
    if not quaternion:
        return a * (1 - t) + b * t
    dot = (a * b).sum(-1, keepdims=True)
    b, dot = np.where(dot < 0, -b, b), np.abs(dot)
    angle = np.arccos(np.clip(dot, 0, 1))
    sine = np.sin(angle)
    near = sine < 1e-4
    safe = np.where(near, 1, sine)
    return np.where(near, 1 - t, np.sin((1 - t) * angle) / safe) * a + np.where(near, t, np.sin(t * angle) / safe) * b
