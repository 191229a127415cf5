"""The Triton rasterizer against the reference on random scenes: few small ones interpreted, many larger ones on a device."""

from __future__ import annotations

import pytest
import torch
from fuzz_scenes import check_fuzz

pytest.importorskip("triton", reason="Triton exists for Linux only")
CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if CUDA else []


@pytest.mark.parametrize("seed", range(40 if CUDA else 3))
def test_fuzz(seed):
    from bozzetto.raster.triton import rasterize_triton

    if CUDA:
        check_fuzz(rasterize_triton, seed, 3000, 150, "cuda")
    else:
        check_fuzz(rasterize_triton, seed, 8, 20)


@pytest.mark.slow
@pytest.mark.skipif(CUDA, reason="a device checks larger scenes")
@pytest.mark.parametrize("seed", range(100, 120))
def test_fuzz_more(seed):
    from bozzetto.raster.triton import rasterize_triton

    check_fuzz(rasterize_triton, seed, 30, 40)
