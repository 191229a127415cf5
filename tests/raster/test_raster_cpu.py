"""The CPU rasterizer against stored pictures and gradients, and against the reference."""

from __future__ import annotations

import pytest
from scenes import LOCAL, LOCAL_FOLDER, SCENES, check_scene

from bozzetto.raster.cpu import rasterize_cpu


@pytest.mark.parametrize("name", LOCAL)
def test_local_scene(name):
    check_scene(rasterize_cpu, LOCAL_FOLDER / f"{name}.npz", picture_limit=2e-6, gradient_limit=3e-6)


@pytest.mark.parametrize("name", SCENES)
def test_shared_scene(shared, name):
    path = shared / "parity" / "rasterizer" / f"{name}.npz"
    check_scene(rasterize_cpu, path, picture_limit=2e-6, gradient_limit=3e-6)
