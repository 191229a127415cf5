"""The Triton renderer: through Triton's interpreter on the CPU, compiled for a GPU that is not there, and on a real one.

The first two run in a process of their own, since Triton decides at import whether it interprets.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.data.render import Lights, SceneBatch, render_objects

HERE = Path(__file__).resolve().parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

INTERPRET = """
import numpy as np, torch
from render_shapes import corner_texture, quads
from bozzetto.camera import Cameras
from bozzetto.data.render import Lights, SceneBatch, render_objects
import bozzetto.data.render.triton as launcher

holes = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
tilted = quads([(0, 0, 0.1), (0.1, 0, -0.1)], [(0, 0.6, 0.8), (0.6, 0, 0.8)], [(1, 0, 0), (0.8, 0, -0.6)], 0.35,
               [holes, corner_texture(8)])
flat = quads([(0, 0, 0)], [(0, 0, 1)], [(1, 0, 0)], 0.3, [corner_texture(16)])
empty = quads([(0, 0, 0)], [(0, 0, 1)], [(1, 0, 0)], 0.3, [corner_texture(16)])
for name in ("faces", "uvs", "normals", "material"):
    setattr(empty, name, getattr(empty, name)[:0])
scene = SceneBatch.pack([tilted, empty, flat])
cameras = Cameras.orbit([[0.0, 200.0], [0, 0], [30, 180]], [[10.0, 20.0], [0, 0], [-10, 0]])
lights = Lights.random(3, torch.Generator().manual_seed(1), glossy=1.0)
every = dict(outputs=("rgba", "depth", "normals"))
cases = [
    (every, 64, 1 << 18, 1 << 29),  # large triangles go through the queue
    (dict(outputs=("rgba",), dtype=torch.uint8, cull_backfaces=True), 64, 5, 1),  # ... which overflows; views in turns
    (dict(outputs=("depth",), supersample=1), 2048, 1 << 18, 1 << 29),
    (dict(outputs=("rgba",)), 64, 1 << 18, 1 << 29, Lights.random(3, torch.Generator().manual_seed(2), 1.0, 1.0)),
]
for options, launcher.CHUNK, launcher.QUEUE_CAPACITY, launcher.KEY_BYTES, *other in cases:
    light = other[0] if other else lights
    mine = render_objects(scene, cameras, (8, 11), light, backend="triton", **options)
    twin = render_objects(scene, cameras, (8, 11), light, backend="cpu", **options)
    for name in options["outputs"]:
        a, b = getattr(mine, name), getattr(twin, name)
        assert a.dtype == b.dtype and b.float().abs().sum() > 0
        worst = (a.float() - b.float()).abs().max().item()
        assert worst <= (1 if a.dtype == torch.uint8 else 1e-5), (name, worst)
nothing = render_objects(SceneBatch.pack([empty]), cameras[:1], 8, backend="triton")
assert all(x.abs().sum() == 0 for x in (nothing.rgba, nothing.depth, nothing.normals))
print("agreed")
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bozzetto.data.render.triton_shading import shade_kernel
from bozzetto.data.render.triton_visibility import queue_kernel, visibility_kernel

types = {n: "*fp32" for n in "vertices uvs normals base_colors cameras lights lamps rgba depth normal_map".split()}
types |= {n: "*i32" for n in "faces material face_object sizes texels queue queue_length".split()}
types |= {"levels": "*i64", "keys": "*i64", "near": "fp32"}

def build(kernel, warps, constants):
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    values = {(i,): constants[n] for i, n in enumerate(kernel.arg_names) if n in constants}
    options = {"num_warps": warps, "num_stages": 1}
    built = triton.compile(ASTSource(kernel, signature, values), target=GPUTarget("cuda", 90, 32), options=options)
    return built.asm["ptx"]

ptx = build(visibility_kernel, 1, dict(CULL=True, CHUNK=2048, BLOCK=64))
assert "relaxed.max.s64" in ptx
build(queue_kernel, 4, dict(CULL=False, CHUNK=2048, BLOCK=512))
everything = dict(SUPERSAMPLE=2, COLOR=True, BYTES=False, DEPTH=True, NORMALS=True, LAMPS=3, TILE=8)
build(shade_kernel, 2, everything | dict(ENVIRONMENT=False))
build(shade_kernel, 2, everything | dict(ENVIRONMENT=True))
print("compiled")
"""


def run(script: str, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=HERE,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_triton
def test_interpreted_kernels_agree_with_the_cpu():
    assert "agreed" in run(INTERPRET, TRITON_INTERPRET="1")


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path):
    assert "compiled" in run(COMPILE, TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("size, samples", [((96, 128), 2), (200, 1), (33, 3)])
def test_gpu_agrees_with_the_cpu(size, samples):
    from render_shapes import cube, sphere

    scene = SceneBatch.pack([cube(), sphere(24, 40, side=256)])
    cameras = Cameras.orbit([[0.0, 50.0, 200.0], [10.0, 90.0, 300.0]], 20.0)
    lights = Lights.random(2, torch.Generator().manual_seed(0), glossy=0.5)
    there = render_objects(scene.to("cuda"), cameras, size, lights, supersample=samples)
    here = render_objects(scene, cameras, size, lights, supersample=samples)
    for name in ("rgba", "depth", "normals"):
        difference = (getattr(there, name).cpu() - getattr(here, name)).abs()
        assert difference.mean() < 1e-4 and (difference > 2e-3).float().mean() < 2e-3
