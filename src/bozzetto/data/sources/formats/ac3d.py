"""AC3D's ``.ac`` text format: a tree of objects with polygons; right-handed, y up, v = 0 at the picture's bottom row."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ....errors import MeshError
from ..common import weld

POLYGON, STRIP = 0, 4  # surface types; 1 and 2 are lines


@dataclass
class AcMesh:
    """Triangles of one object and one material: vertices [V, 3], faces [F, 3], uvs [V, 2], the object's name, the picture
    (or ""), colour (rgb 0..1) and transparency (0 = opaque)."""

    name: str
    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32]
    texture: str
    colour: tuple[float, float, float]
    transparency: float


@dataclass
class _Object:
    """What the lines of one OBJECT say."""

    name: str = ""
    texture: str = ""
    repeat: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    place: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    turn: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    vertices: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    corners: dict[int, list[tuple[int, float, float]]] = field(default_factory=dict)  # material -> three a triangle


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self.lines, self.at, self.name = text.splitlines(), 0, name
        self.materials: list[tuple[tuple[float, float, float], float]] = []
        self.meshes: list[AcMesh] = []

    def line(self) -> str:
        """The next line that is not blank."""
        while self.at < len(self.lines):
            self.at += 1
            if line := self.lines[self.at - 1].strip():
                return line
        raise MeshError(f"{self.name} ends in the middle of an object")

    def read(self) -> list[AcMesh]:
        if not self.lines or not self.lines[0].startswith("AC3D"):
            raise MeshError(f"{self.name} is no AC3D file")
        self.at = 1
        while self.at < len(self.lines):
            word, _, rest = self.lines[self.at].strip().partition(" ")
            self.at += 1
            if word == "MATERIAL":
                self.materials.append(_material(rest))
            elif word == "OBJECT":
                self.object(np.zeros(3), np.eye(3))
        return self.meshes

    def object(self, place: NDArray, turn: NDArray) -> None:
        """Read the object whose OBJECT line was just passed, and its children, below a parent's place and turn."""
        obj = _Object()
        while True:
            word, _, rest = self.line().partition(" ")
            if word == "name":
                obj.name = rest.strip().strip('"')
            elif word == "texture" and not obj.texture:
                words = shlex.split(rest.replace("\\", "/"), posix=True) if '"' in rest else rest.split()
                obj.texture = words[0] if words else ""
            elif word == "texrep":
                obj.repeat = tuple(float(x) for x in rest.split()[:2])
            elif word == "texoff":
                obj.offset = tuple(float(x) for x in rest.split()[:2])
            elif word == "loc":
                obj.place = np.array(rest.split()[:3], np.float64)
            elif word == "rot":
                obj.turn = np.array(rest.split()[:9], np.float64).reshape(3, 3).T
            elif word == "data":
                self.line()
            elif word == "numvert":
                rows = [self.line().split()[:3] for _ in range(int(rest))]
                obj.vertices = np.array(rows, np.float64).reshape(-1, 3)
            elif word == "numsurf":
                for _ in range(int(rest)):
                    self.surface(obj)
            elif word == "kids":
                place, turn = place + turn @ obj.place, turn @ obj.turn
                self.finish(obj, place, turn)
                for _ in range(int(rest)):
                    if not self.next_object():  # some files promise more children than they have
                        return
                    self.object(place, turn)
                return

    def next_object(self) -> bool:
        """Move behind the next OBJECT line; False when there is none."""
        while self.at < len(self.lines):
            self.at += 1
            if self.lines[self.at - 1].startswith("OBJECT"):
                return True
        return False

    def surface(self, obj: _Object) -> None:
        """Read one SURF into triangles; lines are passed over."""
        while not (line := self.line()).startswith("SURF"):
            pass
        kind, material = int(line.split()[1], 0) & 0xF, 0
        while not (line := self.line()).startswith("refs"):
            if line.startswith("mat"):
                material = int(line.split()[1])
        rows = [self.line().split() for _ in range(int(line.split()[1]))]
        corners = [(int(r[0]), float(r[1]), float(r[2])) for r in rows]
        out = obj.corners.setdefault(material, [])
        if kind == POLYGON:
            for i in range(1, len(corners) - 1):
                out += [corners[0], corners[i], corners[i + 1]]
        elif kind == STRIP:
            for i in range(len(corners) - 2):
                a, b, c = corners[i : i + 3]
                out += [a, b, c] if i % 2 == 0 else [b, a, c]

    def finish(self, obj: _Object, place: NDArray, turn: NDArray) -> None:
        """Add the object's triangles, moved to their place, to the meshes."""
        points = obj.vertices @ turn.T + place
        for material, corners in obj.corners.items():
            if not corners:
                continue
            index = np.array([c[0] for c in corners])
            if index.min() < 0 or index.max() >= len(points):
                raise MeshError(f"{self.name}: object {obj.name!r} names a vertex that is not there")
            uvs = np.array([c[1:] for c in corners], np.float64) * obj.repeat + obj.offset
            _, place_of_uv = np.unique(uvs.round(6), axis=0, return_inverse=True)
            faces, (first,) = weld(np.stack([index, place_of_uv.reshape(-1)], 1), np.arange(len(corners)))
            colour, transparency = self.materials[material] if material < len(self.materials) else ((0.7,) * 3, 0.0)
            self.meshes.append(
                AcMesh(
                    obj.name,
                    points[index[first]].astype(np.float32),
                    faces,
                    uvs[first].astype(np.float32),
                    obj.texture,
                    colour,
                    transparency,
                )
            )


def _material(rest: str) -> tuple[tuple[float, float, float], float]:
    """Colour and transparency of a MATERIAL line."""
    words = rest.split('"')[-1].split()
    colour, transparency = (0.7, 0.7, 0.7), 0.0
    for i, word in enumerate(words):
        if word == "rgb":
            colour = tuple(min(max(float(x), 0.0), 1.0) for x in words[i + 1 : i + 4])
        elif word == "trans":
            transparency = float(words[i + 1])
    return colour, transparency


def parse_ac3d(text: str, name: str = "model.ac") -> list[AcMesh]:
    """All triangles of a file, by object and material.

    Raises:
        MeshError: another format, cut short, or numbers that make no sense.
    """
    try:
        return _Reader(text, name).read()
    except (ValueError, IndexError) as problem:
        raise MeshError(f"{name}: {problem}") from None
