"""A :class:`SourceObject` as the record and blobs of a shard, and back as an :class:`AssetObject`."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...errors import InputError
from .asset_object import AssetObject
from .captions import main_colours
from .checks import Limits, check
from .clip_blob import decode_clip, encode_clip, resample
from .decimate import decimate_object
from .geometry_blob import decode_geometry, encode_geometry, reorder
from .normalise import move_clip, move_points, placement
from .pictures import QUALITY, PictureCache, decode_picture
from .pose import clip_seconds
from .shard import DatasetError, Shard, ShardWriter
from .source_object import Clip, Part, SourceObject
from .splits import object_split


@dataclass(frozen=True)
class PackOptions:
    """How objects are packed.

    Attributes:
        texture_size: longest side of a texture, a power of two.
        texture_quality: of WebP, 1 to 100.
        position_bits: per axis, over the part's box, 10 to 16.
        clip_fps: clips with more frames per second are thinned out.
        most_clips: an object with more keeps this many, drawn by its name (so that a collection's objects differ).
        limits: what is refused or decimated.
    """

    texture_size: int = 256
    texture_quality: int = QUALITY
    position_bits: int = 13
    clip_fps: float = 15.0
    most_clips: int = 6
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not (8 <= self.texture_size <= 4096 and self.texture_size & (self.texture_size - 1) == 0):
            raise InputError(f"the texture size must be a power of two from 8 to 4096, not {self.texture_size}")
        for name, low, high in (
            ("texture_quality", 1, 100),
            ("position_bits", 10, 16),
            ("clip_fps", 1, 240),
            ("most_clips", 0, 10_000),
        ):
            if not low <= getattr(self, name) <= high:
                meaning = {"clip_fps": "frames per second of clips", "most_clips": "clips of each object"}.get(
                    name, name
                )
                raise InputError(f"{meaning} must be {low} to {high}, not {getattr(self, name)}")


@dataclass
class EncodedObject:
    """What :func:`encode_object` makes: a record whose blob numbers count through ``blobs``, and its :func:`shape_digest`."""

    record: dict[str, Any]
    blobs: list[bytes]
    shape: str = ""


def object_digest(obj: SourceObject) -> str:
    """sha256 (hex) of everything that is seen of an object: triangles, coordinates, pictures, colours, motion."""
    out = hashlib.sha256()

    def add(*arrays: np.ndarray | None) -> None:
        for a in arrays:
            out.update(b"-" if a is None else repr((a.shape, a.dtype.str)).encode() + np.ascontiguousarray(a).tobytes())

    for p in obj.parts:
        add(p.vertices, p.faces, p.uvs, p.joints, p.weights, p.colours)
        out.update(repr((p.texture, tuple(round(float(c), 6) for c in p.colour), p.alpha)).encode())
    add(*obj.textures)
    for c in obj.clips:
        out.update(repr((c.name, round(float(c.fps), 4))).encode())
        add(c.matrices, *(c.positions or ()))
    return out.hexdigest()


def shape_digest(obj: SourceObject) -> str:
    """sha256 (hex) of the triangles alone: equal for one mesh in several colours, however its materials are sorted."""
    parts = [
        hashlib.sha256(np.ascontiguousarray(p.vertices[p.faces], np.float32).tobytes()).digest() for p in obj.parts
    ]
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def encode_object(
    obj: SourceObject, options: PackOptions, turn: float = 0.0, cache: PictureCache | None = None
) -> EncodedObject:
    """Check, thin out, place and encode one object.

    Args:
        turn: degrees about y that bring its front to +z.
        cache: shared by calls of one process, so that a picture which many objects wear is encoded once.

    Raises:
        RefusedError: the object is not fit for training; the message is the reason.
    """
    digest = object_digest(obj)
    obj, flags = check(obj, options.limits)
    shape = shape_digest(obj)
    obj = replace(obj, parts=[_plain(p, bool(obj.clips)) for p in obj.parts])
    full = obj.triangles
    if full > options.limits.most_triangles:
        obj = decimate_object(obj, options.limits.most_triangles)
        flags += ("decimated",)
    colours = main_colours(obj)
    obj = _reordered(obj)
    obj = replace(obj, clips=[resample(c, options.clip_fps) for c in _drawn(obj, options.most_clips)])
    place = placement(obj, turn)
    blobs: list[bytes] = []

    def blob(data: bytes) -> int:
        blobs.append(data)
        return len(blobs) - 1

    cache = cache or PictureCache(options.texture_size, options.texture_quality)
    used = sorted({p.texture for p in obj.parts if p.texture is not None})
    alpha = {p.texture for p in obj.parts if p.alpha != "opaque"}
    record = {
        "source": obj.source,
        "name": obj.name,
        "group": obj.group,
        "split": object_split(obj),
        "licence": obj.licence,
        "author": obj.author,
        "caption": obj.caption,
        "category": obj.category,
        "tags": list(obj.tags),
        "flags": list(flags),
        "colours": list(colours),
        "triangles": obj.triangles,
        "source_triangles": full,
        "digest": digest,
        "placement": [float(f"{x:.9g}") for x in place.matrix[:3].reshape(-1)],
        "rest": list(place.rest),
        "textures": [blob(cache.encode(obj.textures[t], t in alpha)) for t in used],
        "parts": [
            {
                "geometry": blob(encode_geometry(p, options.position_bits)),
                "texture": None if p.texture is None else used.index(p.texture),
                "colour": [round(float(c), 4) for c in p.colour],
                "alpha": p.alpha,
            }
            for p in obj.parts
        ],
        "clips": [
            {"name": c.name, "blob": blob(encode_clip(c)), "seconds": round(clip_seconds(c), 4), "motion": m}
            for c, m in zip(obj.clips, place.motions)
        ],
    }
    return EncodedObject(record, blobs, shape)


def _plain(part: Part, moving: bool) -> Part:
    """A part without a picture needs no coordinates, and (where it does not move) one vertex per place."""
    if part.texture is not None or (part.uvs is None and part.colours is not None):
        return part
    part = replace(part, uvs=None)
    if moving or part.colours is not None:
        return part
    vertices, index = np.unique(part.vertices, axis=0, return_inverse=True)
    faces = index.reshape(-1)[part.faces].astype(np.int32)
    a, b, c = faces.T
    return replace(part, vertices=vertices, faces=faces[(a != b) & (b != c) & (c != a)], joints=None, weights=None)


def _drawn(obj: SourceObject, most: int) -> list[Clip]:
    """At most ``most`` clips, chosen by the hash of the object's and the clip's name, in their order."""

    def place(i: int) -> bytes:
        return hashlib.sha256(f"{obj.name}\0{obj.clips[i].name}\0{i}".encode()).digest()

    chosen = sorted(range(len(obj.clips)), key=place)[:most]
    return [obj.clips[i] for i in sorted(chosen)]


def _reordered(obj: SourceObject) -> SourceObject:
    done = [reorder(p) for p in obj.parts]
    orders = [order for _, order in done]
    clips = [
        c if c.positions is None else replace(c, positions=[p[:, o] for p, o in zip(c.positions, orders)])
        for c in obj.clips
    ]
    return replace(obj, parts=[p for p, _ in done], clips=clips)


def write_object(writer: ShardWriter, encoded: EncodedObject) -> None:
    """Add an encoded object to a shard; blobs that are there already are not written again."""
    numbers = [writer.blob(hashlib.sha256(b).digest(), b) for b in encoded.blobs]
    record = dict(encoded.record)
    record["textures"] = [numbers[i] for i in record["textures"]]
    record["parts"] = [p | {"geometry": numbers[p["geometry"]]} for p in record["parts"]]
    record["clips"] = [c | {"blob": numbers[c["blob"]]} for c in record["clips"]]
    writer.record(record)


def read_object(shard: Shard, number: int, clips: bool = True) -> AssetObject:
    """Object ``number`` of a shard in the house frame; without ``clips`` the motion is not decoded.

    Raises:
        DatasetError: its bytes are damaged.
    """
    record = shard.records[number]
    try:
        return _read(shard, record, clips)
    except (ValueError, KeyError, IndexError, TypeError, OSError, struct.error, zlib.error) as problem:
        raise DatasetError(
            f"{shard.path}: object {record.get('name', number)!r} is damaged ({type(problem).__name__}: {problem}); "
            "convert or copy the file again"
        ) from problem


def _read(shard: Shard, record: dict[str, Any], clips: bool) -> AssetObject:
    matrix = np.eye(4)
    matrix[:3] = np.reshape(record["placement"], (3, 4))
    parts = []
    for entry in record["parts"]:
        part = decode_geometry(shard.blob(entry["geometry"]))
        part.vertices = move_points(part.vertices, matrix)
        part.texture, part.colour, part.alpha = entry["texture"], tuple(entry["colour"]), entry["alpha"]
        parts.append(part)
    sizes = [len(p.vertices) for p in parts]
    motion = []
    for entry in record["clips"] if clips else ():
        motion.append(move_clip(decode_clip(shard.blob(entry["blob"]), entry["name"], sizes), matrix))
    return AssetObject(
        source=record["source"],
        name=record["name"],
        group=record["group"],
        parts=parts,
        textures=[decode_picture(shard.blob(b)) for b in record["textures"]],
        clips=motion,
        caption=record["caption"],
        category=record["category"],
        tags=tuple(record["tags"]),
        licence=record["licence"],
        author=record["author"],
        split=record["split"],
        flags=tuple(record["flags"]),
        colour_words=tuple(record["colours"]),
        rest=tuple(record["rest"]),
        placement=matrix,
        digest=record["digest"],
    )
