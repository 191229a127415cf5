"""Hash encoding: the kernels against the plain form, the plain form against finite differences and against what it must be."""

import os
import subprocess
import sys

import pytest
import torch

from bozzetto.surface.nerf.hash_grid import (
    GridLayout,
    HashGrid,
    encode_reference,
    variation_gradient_reference,
)

BACKENDS = ["cpu", "triton"]
LAYOUT = GridLayout.make(levels=5, base=4, finest=64, table=1 << 11)


def device_of(backend: str) -> str:
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"


def data(count: int = 700, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator)
    points[0], points[1] = 0.0, 1.0
    return points, torch.randn(LAYOUT.rows, 2, generator=generator)


def test_layout_has_whole_and_hashed_levels():
    assert LAYOUT.dense[0] and not LAYOUT.dense[-1]
    assert GridLayout.make().sides[0] == 17 and GridLayout.make().sides[-1] == 2049
    for level in range(LAYOUT.levels):
        corners = torch.arange(LAYOUT.sides[level])[[0, 1, -1]]
        x, y, z = (g.reshape(-1) for g in torch.meshgrid(corners, corners, corners, indexing="ij"))
        row = LAYOUT.row(level, x, y, z)
        assert int(row.min()) >= LAYOUT.starts[level] and int(row.max()) < LAYOUT.starts[level + 1]
        if LAYOUT.dense[level]:
            assert len(row.unique()) == len(row)
    with pytest.raises(ValueError, match="power of two"):
        GridLayout.make(table=1000)


def test_reference_interpolates():
    """On lattice points the stored value, in between a mean; on a dense level a linear function is kept."""
    layout = GridLayout.make(levels=1, base=8, finest=8, table=1 << 10)
    side, scale = layout.sides[0], layout.scales[0]
    z, y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float32),) * 3, indexing="ij")
    table = torch.stack([x + 10 * y + 100 * z, z - y], dim=-1).reshape(-1, 2)
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(1))
    at = points * scale + 0.5
    expected = torch.stack([at[:, 0] + 10 * at[:, 1] + 100 * at[:, 2], at[:, 2] - at[:, 1]], dim=1)
    assert torch.allclose(encode_reference(points, table, layout), expected, atol=1e-3)


def test_reference_gradients():
    points, table = data(6)
    points = (points * 0.9 + 0.05).double().requires_grad_()
    layout = GridLayout.make(levels=2, base=2, finest=5, table=1 << 6)
    table = table[: layout.rows].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, t: encode_reference(p, t, layout), (points, table))


@pytest.mark.parametrize("backend", BACKENDS)
def test_kernels_agree_with_the_reference(backend):
    device = device_of(backend)
    points, table = (t.to(device) for t in data())
    grid = HashGrid(LAYOUT, torch.Generator().manual_seed(0), backend).to(device)
    with torch.no_grad():
        grid.table.copy_(table)
    leaf = table.clone().requires_grad_()
    expected, made = encode_reference(points, leaf, LAYOUT), grid(points)
    assert torch.allclose(made, expected, atol=1e-5)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(device)
    gradient[::3] = 0
    expected.backward(gradient)
    made.backward(gradient)
    assert torch.allclose(grid.table.grad, leaf.grad, atol=1e-5)
    before = grid.table.grad.clone()
    grid.add_variation_gradient(points, 0.6)
    variation = variation_gradient_reference(points, table, LAYOUT, 0.6)
    assert float(variation.abs().max()) > 0.05
    assert torch.allclose(grid.table.grad - before, variation, atol=1e-5)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_no_points(backend):
    device = device_of(backend)
    grid = HashGrid(LAYOUT, torch.Generator().manual_seed(0), backend).to(device)
    features = grid(torch.zeros(0, 3, device=device))
    assert features.shape == (0, grid.width)
    features.sum().backward()
    assert not bool(grid.table.grad.any())


def test_variation_gradient_smooths():
    """Following the gradient makes neighbours more alike."""
    layout = GridLayout.make(levels=1, base=8, finest=8, table=1 << 10)
    table = torch.randn(layout.rows, 2, generator=torch.Generator().manual_seed(0))
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(1))

    def roughness(t: torch.Tensor) -> float:
        cube = t.reshape(layout.sides[0], layout.sides[0], layout.sides[0], 2)[1:-1, 1:-1, 1:-1]
        return float((cube[1:] - cube[:-1]).square().mean())

    before = roughness(table)
    for _ in range(20):
        table = table - variation_gradient_reference(points, table, layout, 0.05)
    assert roughness(table) < 0.5 * before


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bozzetto.surface.nerf import edges_triton as e, hash_grid_triton as h, march_triton as m, surface_triton as s

types = {name: "i32" for name in ("count", "width", "height", "half_edges", "side")} | {"weight": "fp32", "step": "fp32"}
types |= {name: "*i32" for name in ("numbers", "face", "faces", "neighbour", "counts")} | {"full": "*u8"}
types |= {name: "*i64" for name in ("keys", "ends", "short_ends")}
constants = {"LEVELS": 12, "CHANNELS": 4, "OPAQUE": 1e-4, "BLOCK": 128, "AXIS": 1}
kernels = [h.encode_kernel, h.encode_gradient_kernel, h.variation_kernel, s.surface_kernel, e.outline_kernel]
kernels += [e.blend_kernel, e.blend_gradient_kernel, m.count_kernel, m.place_kernel, m.seen_kernel, m.shorten_kernel]
for kernel in (*kernels, m.composite_kernel, m.composite_gradient_kernel):
    own = {k: v for k, v in constants.items() if k in kernel.arg_names}
    signature = {n: "constexpr" if n in own else types.get(n, "*fp32") for n in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=own)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert "ld.global" in made.asm["ptx"]
print("compiled")
"""


@pytest.mark.slow
def test_kernels_compile_for_cuda(tmp_path):
    """The interpreter takes more than the compiler does."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == "compiled", run.stderr
