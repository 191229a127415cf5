"""The readers on the real packages, where BOZZETTO_ASSETS names the folder that holds them unpacked."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bozzetto.data.sources.licences import requires_gpl
from bozzetto.data.sources.registry import SOURCES

# (objects, objects with a picture, objects with clips): at least so many.
LEAST = {
    "sweethome3d": (820, 381, 0),
    "zeroad": (4600, 4600, 1150),
    "supertuxkart": (600, 580, 0),
    "megaglest": (1000, 1000, 340),
    "ufoai": (600, 590, 14),
    "openarena": (60, 60, 60),
    "flightgear_ai": (250, 250, 0),
}


@pytest.fixture(scope="module")
def packages() -> Path:
    folder = os.environ.get("BOZZETTO_ASSETS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set BOZZETTO_ASSETS to a folder of unpacked packages")
    return Path(folder)


def check(obj, source: str) -> None:
    assert obj.source == source and obj.name and obj.group and obj.licence and obj.triangles > 0
    for part in obj.parts:
        assert part.vertices.dtype == np.float32 and part.faces.dtype == np.int32
        assert np.isfinite(part.vertices).all() and part.faces.min() >= 0 and part.faces.max() < len(part.vertices)
        assert part.uvs is None or (part.uvs.shape == (len(part.vertices), 2) and part.uvs.dtype == np.float32)
        assert part.texture is None or part.texture < len(obj.textures)
        assert (part.joints is None) == (part.weights is None)
        if part.weights is not None:
            assert np.allclose(part.weights.sum(1), 1, atol=1e-3)
            assert all(part.joints.max() < c.matrices.shape[1] for c in obj.clips)
    for clip in obj.clips:
        assert clip.fps > 0 and (clip.matrices is None) != (clip.positions is None)
        if clip.matrices is not None:
            assert np.isfinite(clip.matrices).all()
        else:
            shapes = {(len(clip.positions[0]), len(p.vertices), 3) for p in obj.parts}
            assert {p.shape for p in clip.positions} == shapes


@pytest.mark.parametrize("source", SOURCES)
def test_first_objects_are_sound(packages, source):
    for obj in islice(SOURCES[source].read(packages), 30):
        check(obj, source)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_counts(packages, source):
    names, textured, animated, free = set(), 0, 0, 0
    for obj in SOURCES[source].read(packages):
        check(obj, source)
        assert obj.name not in names
        names.add(obj.name)
        textured += bool(obj.textures)
        animated += bool(obj.clips)
        free += not requires_gpl(obj.licence)
    objects, least_textured, least_animated = LEAST[source]
    assert len(names) >= objects and textured >= least_textured and animated >= least_animated
    if source in ("sweethome3d", "zeroad", "megaglest"):
        assert free == len(names)
