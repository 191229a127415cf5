"""Wavefront OBJ and MTL as text -> parts, for models that lie in archives.

(:mod:`bozzetto.files.obj` reads one file from disk into one mesh with one texture; here materials stay apart.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import MeshError
from ...assets.source_object import Part
from ..common import Textures, decode_picture, top_row_zero, weld

Fetch = Callable[[str], bytes | None]


@dataclass
class Material:
    """The part of an MTL material that pictures need: sRGB colour, opacity, and the colour picture's name."""

    colour: tuple[float, float, float] = (0.8, 0.8, 0.8)
    opacity: float = 1.0
    picture: str | None = None


def parse_materials(text: str) -> dict[str, Material]:
    """Material name -> :class:`Material`; lines that make no sense are passed over."""
    out: dict[str, Material] = {}
    current: Material | None = None
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        word, rest = word.lower(), rest.strip()
        if word == "newmtl":
            current = out.setdefault(rest, Material())
        elif current is None:
            continue
        elif word == "map_kd" and rest:
            current.picture = rest
        elif word in ("kd", "d", "tr"):
            try:
                values = [float(v) for v in rest.split() if v != "-halo"]
            except ValueError:
                continue
            if not values or not all(math.isfinite(v) for v in values):
                continue
            if word == "kd":
                values = [min(max(v, 0.0), 1.0) for v in values]
                current.colour = tuple(values[:3]) if len(values) >= 3 else (values[0],) * 3
            else:
                current.opacity = values[0] if word == "d" else 1 - values[0]
    return out


def _picture(material: Material, fetch: Fetch, textures: Textures) -> int | None:
    """Index of the material's picture, looked for under its full name, what options before it leave, and its bare file name."""
    name = material.picture
    if name is None:
        return None

    def load() -> NDArray[np.uint8] | None:
        words = name.split(" ")  # "-s 1 1 1 oak wood.png"
        rests = [" ".join(words[k:]) for k in range(1, len(words))] if name.startswith("-") else [words[-1]]
        for candidate in (name, *rests, name.replace("\\", "/").rsplit("/", 1)[-1]):
            data = fetch(candidate)
            if data is not None:
                return decode_picture(data, candidate)
        return None

    return textures.add(name, load)


def _corner(word: str, vertices: int, uvs: int) -> tuple[int, int]:
    """Zero-based (vertex, uv) of "3/7/2"; uv is -1 where there is none. Negative numbers count from the end."""
    fields = word.split("/")
    vertex = int(fields[0])
    vertex = vertex - 1 if vertex > 0 else vertices + vertex
    uv = int(fields[1]) if len(fields) > 1 and fields[1] else 0
    uv = uv - 1 if uv > 0 else uvs + uv if uv < 0 else -1
    if not 0 <= vertex < vertices:
        raise MeshError(f"a face names vertex {fields[0]} of {vertices}")
    return vertex, uv if uv < uvs else -1


def parse_wavefront(
    text: str, fetch: Fetch, textures: Textures, *, least_opacity: float = 0.15, name: str = "model"
) -> list[Part]:
    """One part for each material that has faces; polygons become fans.

    Args:
        text: of the OBJ file.
        fetch: file name as written in the OBJ or MTL -> its bytes, or None when there is no such file.
        textures: gets the pictures.
        least_opacity: materials more transparent than this (panes of glass) are left out.
        name: for error messages.

    Raises:
        MeshError: malformed numbers or indices.
    """
    positions: list[list[str]] = []
    coordinates: list[list[str]] = []
    groups: dict[str, list[tuple[int, int]]] = {}
    materials: dict[str, Material] = {}
    fan = groups.setdefault("", [])
    try:
        for line in text.replace("\\\n", " ").splitlines():
            words = line.split()
            if not words:
                continue
            word = words[0]
            if word == "v":
                positions.append(words[1:4])
            elif word == "vt":
                coordinates.append([words[1], words[2] if len(words) > 2 else "0"])
            elif word == "f":
                corners = [_corner(w, len(positions), len(coordinates)) for w in words[1:]]
                for k in range(1, len(corners) - 1):
                    fan += [corners[0], corners[k], corners[k + 1]]
            elif word == "usemtl":
                fan = groups.setdefault(line.strip()[6:].strip(), [])
            elif word == "mtllib":
                data = fetch(line.strip()[6:].strip())
                if data is not None:
                    materials.update(parse_materials(data.decode("latin-1")))
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            points = np.array(positions, np.float64).reshape(-1, 3).astype(np.float32)
        uvs = top_row_zero(np.array(coordinates, np.float64).reshape(-1, 2))
    except (ValueError, IndexError) as problem:
        raise MeshError(f"{name}: {problem}") from None
    parts = []
    for key, corners in groups.items():
        material = materials.get(key, Material())
        if not corners or material.opacity < least_opacity:
            continue
        table = np.array(corners, np.int64)  # [3 F, 2]
        missing = table[:, 1] < 0
        has_uvs = bool(missing.mean() < 0.5)
        table[missing, 1] = 0  # a few corners without coordinates do not spoil the rest
        faces, (first,) = weld(table, table)
        texture = _picture(material, fetch, textures) if has_uvs else None
        parts.append(
            Part(
                points[first[:, 0]],
                faces,
                uvs[first[:, 1]] if has_uvs else None,
                texture,
                (1.0, 1.0, 1.0) if texture is not None else material.colour,
                textures.alpha(texture),
            )
        )
    return parts
