"""The reference rasterizer against stored pictures and gradients."""

from __future__ import annotations

import pytest
import torch
from scenes import LOCAL, LOCAL_FOLDER, SCENES, check_scene

from bozzetto.raster.reference import rasterize_reference


@pytest.mark.parametrize("name", LOCAL)
def test_local_scene_float32(name):
    check_scene(rasterize_reference, LOCAL_FOLDER / f"{name}.npz")


@pytest.mark.parametrize("name", SCENES)
def test_shared_scene_float64(shared, name):
    check_scene(
        rasterize_reference,
        shared / "parity" / "rasterizer" / f"{name}.npz",
        torch.float64,
        picture_limit=2e-7,
        gradient_limit=2e-7,
    )
