"""The protocol, frozen: what is measured, from where, on which objects. docs/evaluation.md says it in words.

A change of anything here that could change a number needs a new :data:`PROTOCOL`.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

from ..camera import Cameras
from ..data.assets.splits import HELD_OUT_ANIMALS, TEST

PROTOCOL = "bozzetto-views-1"

SIZE = 256  # pixels, square, on white
RADIUS, FOV_Y = 1.5, 49.1  # LGM's camera; an object has a bounding sphere of radius 0.6 around the origin
INPUT_AZIMUTHS = (0.0, 90.0, 180.0, 270.0)  # elevation 0; a single view is the first
GRID_AZIMUTHS = tuple(22.5 * k for k in range(16))
GRID_ELEVATIONS = (0.0, 20.0, 40.0, 60.0)
AROUND = 16  # cameras of the set "around"
OBJECTS = 50  # of each source; a smaller number takes the first of them
LEAST_TRIANGLES = 100
WITHOUT = ("foliage", "pieces")  # flags
TASKS = {"4view": 4, "1view": 1}  # name -> input views


def grid_cameras() -> Cameras:
    """(64,): 16 azimuths at each of the elevations 0, 20, 40 and 60 degrees, azimuths first."""
    azimuths = [a for _ in GRID_ELEVATIONS for a in GRID_AZIMUTHS]
    elevations = [e for e in GRID_ELEVATIONS for _ in GRID_AZIMUTHS]
    return Cameras.orbit(azimuths, elevations, RADIUS, FOV_Y)


def around_cameras() -> Cameras:
    """(16,) spread evenly over the whole sphere, from below too: a spiral of golden angles."""
    turn = 180.0 * (3.0 - math.sqrt(5.0))
    heights = [-1.0 + (2 * k + 1) / AROUND for k in range(AROUND)]
    elevations = [math.degrees(math.asin(h)) for h in heights]
    return Cameras.orbit([k * turn % 360.0 for k in range(AROUND)], elevations, RADIUS, FOV_Y)


def novel_of_grid(inputs: int) -> list[int]:
    """Numbers of the grid's cameras that are not among the first ``inputs`` input cameras."""
    seen = {GRID_AZIMUTHS.index(a) for a in INPUT_AZIMUTHS[:inputs]}
    return [i for i in range(len(GRID_AZIMUTHS) * len(GRID_ELEVATIONS)) if i not in seen]


def elevation_set(elevation: float) -> str:
    """What the cameras of the grid at one elevation are called as a set of their own: "elevation_20"."""
    return f"elevation_{elevation:g}"


def novel_by_elevation(inputs: int) -> dict[str, list[int]]:
    """:func:`novel_of_grid` apart by elevation: name of the set -> numbers of the grid's cameras."""
    novel, count = novel_of_grid(inputs), len(GRID_AZIMUTHS)
    return {elevation_set(e): [i for i in novel if i // count == row] for row, e in enumerate(GRID_ELEVATIONS)}


@dataclass(frozen=True)
class HeldOut:
    """A part of a collection that is measured on its own: ``title``; ``source``, whose objects' ``field`` matches ``pattern``."""

    title: str
    source: str
    field: str = "name"
    pattern: str = ""

    def holds(self, record: dict) -> bool:
        """Whether an object belongs to it (its split is looked at elsewhere)."""
        return record["source"] == self.source and re.search(self.pattern, record[self.field], re.I) is not None


# Name in reports -> what it is. Only objects whose split is "test" count.
HELD_OUT = {
    "ufoai": HeldOut("UFO: Alien Invasion, objects and vehicles", "ufoai"),
    "openarena": HeldOut("OpenArena, characters at rest", "openarena"),
    "flightgear": HeldOut("FlightGear, aircraft", "flightgear_ai"),
    "katorlegaz": HeldOut("Sweet Home 3D, KatorLegaz's furniture", "sweethome3d", "name", r"^KatorLegaz/"),
    "civilisations": HeldOut(
        "0 A.D., meshes of the Mauryas and Kushites", "zeroad", "group", r"(^|/)(maur|kush)[^/]*$"
    ),
    "animals": HeldOut("0 A.D., animals", "zeroad", "group", rf"(^|/)({'|'.join(HELD_OUT_ANIMALS)})(\.dae)?$"),
}


def order_of(source: str, name: str) -> str:
    """The key by which the objects of a source are sorted before the first ones are taken: a hash, the same everywhere."""
    return hashlib.sha256(f"{PROTOCOL}\0{source}\0{name}".encode()).hexdigest()


def sample_records(records: list[dict], count: int, split: str = TEST) -> list[int]:
    """Which of ``records`` are measured: one of each group, the first ``count`` in the order of their hashes.

    A record needs the keys source, name, group, flags, source_triangles and split; those of another split than ``split``,
    with a flag of :data:`WITHOUT` or under :data:`LEAST_TRIANGLES` triangles do not count. The sample of a smaller ``count``
    is the beginning of that of a larger one. The protocol measures "test"; "train" is there to compare with.
    """
    fit = [
        (order_of(r["source"], r["name"]), i)
        for i, r in enumerate(records)
        if r["split"] == split and not set(WITHOUT) & set(r["flags"]) and r["source_triangles"] >= LEAST_TRIANGLES
    ]
    chosen, groups = [], set()
    for _, i in sorted(fit):
        if records[i]["group"] not in groups:
            groups.add(records[i]["group"])
            chosen.append(i)
    return chosen[:count]
