"""A training step with rasterization inside one CUDA graph: other Gaussians, lists that do not fit, and back again."""

from __future__ import annotations

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.errors import CapacityError
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize

pytest.importorskip("triton", reason="Triton exists for Linux only")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SCENES, VIEWS, N, SIZE = 3, 4, 4000, 160


def random_leaves(seed: int, degree: int, scale: float = 0.01) -> list[torch.Tensor]:
    """means, scales, quats, opacities and SH coefficients."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(SCENES, N, *shape, generator=g)

    leaves = (
        0.25 * normal(3), scale * torch.exp(0.5 * normal(3)), normal(4), torch.rand(SCENES, N, generator=g),
        0.5 * normal((degree + 1) ** 2, 3),
    )  # fmt: skip
    return [t.cuda() for t in leaves]


class Step:
    """Gaussians in tensors that stay where they are; a loss of their pictures, its gradients in ``.grad``."""

    def __init__(self, degree: int, depth: bool) -> None:
        self.leaves = [t.requires_grad_() for t in random_leaves(0, degree)]
        self.background = torch.rand(SCENES, VIEWS, 3, device="cuda").requires_grad_()
        self.inputs = [*self.leaves, self.background]
        self.cameras = Cameras.turntable(VIEWS, elevation=20).to(device="cuda")
        generator = torch.Generator().manual_seed(5)
        self.target = torch.rand(SCENES, VIEWS, SIZE, SIZE, 3, generator=generator).cuda()
        self.depth = depth
        for t in self.inputs:
            t.grad = torch.zeros_like(t)

    def __call__(self) -> tuple[list[torch.Tensor], object]:
        for t in self.inputs:
            t.grad.zero_()
        picture = rasterize(Gaussians(*self.leaves), self.cameras, SIZE, self.background)
        loss = (picture.rgb - self.target).square().mean() + 0.1 * picture.alpha.mean()
        if self.depth:
            loss = loss + 0.01 * picture.depth.square().mean()
        loss.backward()
        return [t.detach() for t in (picture.rgb, picture.alpha, picture.depth, loss)], picture

    def take(self, seed: int, degree: int, scale: float = 0.01) -> None:
        with torch.no_grad():
            for t, value in zip(self.leaves, random_leaves(seed, degree, scale)):
                t.copy_(value)


def assert_close(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Gradients are sums in any order."""
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize(("degree", "depth"), [(0, False), (1, True)])
def test_a_recorded_training_step(degree, depth):
    step = Step(degree, depth)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        canary = torch.empty(1 << 20, dtype=torch.int32, device="cuda")  # which the recording does not write
        pictures, picture = step()
    canary.fill_(77)

    for seed, scale, fits in ((1, 0.01, True), (2, 0.3, False), (3, 0.008, True), (4, 2.0, False), (1, 0.01, True)):
        step.take(seed, degree, scale)
        graph.replay()
        torch.cuda.synchronize()
        got, gradients = [t.clone() for t in pictures], [t.grad.clone() for t in step.inputs]
        assert bool((canary == 77).all())
        if not fits:
            assert all(bool(t.isnan().all()) for t in (*got, *gradients))
            with pytest.raises(CapacityError, match="record it again"):
                picture.check()
            continue
        picture.check()
        expected, _ = step()
        assert all(bool(t.isfinite().all()) for t in (*got, *gradients))
        assert all(torch.equal(a, b) for a, b in zip(got[:3], expected[:3]))
        assert_close(gradients, [t.grad for t in step.inputs])
        assert all(float(t.abs().max()) > 0 for t in gradients)
