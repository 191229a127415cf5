"""The picture loss: kernels against the plain PyTorch version, values and gradients, on fresh random pictures."""

from __future__ import annotations

import contextlib

import pytest
import torch

from bozzetto.training.picture_loss import PictureTerms, picture_terms, picture_terms_torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("white", "black", "alpha", "ssim")


def pictures(n: int, height: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Drawn rgb and alpha, true pictures: smooth, with empty parts and with equal ones."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(channels: int) -> torch.Tensor:
        small = torch.rand(n, channels, 5, 5, generator=generator)
        fine = torch.rand(n, channels, height, width, generator=generator)
        return 0.8 * torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1) + 0.2 * fine

    target, alpha = smooth(4), smooth(1)[:, 0]
    target[:, 3] = (target[:, 3] > 0.5).float()
    alpha[:, : height // 4] = 0
    target[:, 3, : height // 4] = 0
    rgb = smooth(3).permute(0, 2, 3, 1) * alpha[..., None]
    if n > 1:
        rgb[0], alpha[0] = (target[0, :3] * target[0, 3]).permute(1, 2, 0), target[0, 3]
    return rgb.to(DEVICE).contiguous(), alpha.to(DEVICE).contiguous(), target.to(DEVICE).contiguous()


def kernels(rgb, alpha, target) -> PictureTerms:
    pytest.importorskip("triton", reason="Triton exists for Linux only")
    from bozzetto.training.picture_kernels import PictureLoss

    terms, each = PictureLoss.apply(rgb, alpha, target)
    return PictureTerms(*terms.unbind(), each)


def gradients(terms: PictureTerms, weights: tuple[float, ...], inputs: tuple[torch.Tensor, ...]):
    return torch.autograd.grad(
        sum(w * getattr(terms, k) for w, k in zip(weights, NAMES)), inputs, retain_graph=True, materialize_grads=True
    )


@pytest.mark.parametrize("shape", [(2, 16, 24), (1, 8, 8), (2, 12, 276)])
def test_kernels_agree_with_plain_pytorch(shape, monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: contextlib.nullcontext())
    rgb, alpha, target = pictures(*shape, seed=sum(shape))
    inputs = rgb.requires_grad_(), alpha.requires_grad_()
    got, want = kernels(*inputs, target), picture_terms_torch(*inputs, target)
    for name in NAMES:
        assert getattr(got, name).item() == pytest.approx(getattr(want, name).item(), rel=2e-4, abs=1e-6), name
    assert got.white_each.tolist() == pytest.approx(want.white_each.tolist(), rel=2e-4, abs=1e-9)
    assert float(want.white_each.mean()) == pytest.approx(float(want.white.detach()))
    assert not got.white_each.requires_grad and not want.white_each.requires_grad
    for weights in ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0), (0.5, 0.3, 1.0, -0.1)):
        for a, b in zip(gradients(got, weights, inputs), gradients(want, weights, inputs)):
            error = float((a - b).norm() / b.norm().clamp_min(1e-9))
            assert bool(torch.isfinite(a).all()) and error < 2e-3, (weights, error)


def test_equal_pictures_are_a_minimum():
    rgb, alpha, target = (x[:1] for x in pictures(2, 16, 16, seed=1))
    inputs = rgb.clone().requires_grad_(), alpha.clone().requires_grad_()
    terms = picture_terms(*inputs, target)
    assert terms.white.item() < 1e-12 and terms.ssim.item() == pytest.approx(1, abs=1e-4)
    for gradient in gradients(terms, (1, 1, 1, -1), inputs):
        assert float(gradient.abs().max()) < 1e-4


def test_white_alone_does_not_see_a_missing_white_splat():
    target = torch.ones(1, 4, 8, 8, device=DEVICE)
    nothing = picture_terms(torch.zeros(1, 8, 8, 3, device=DEVICE), torch.zeros(1, 8, 8, device=DEVICE), target)
    assert float(nothing.white) == 0 and float(nothing.black) == 1 and float(nothing.alpha) == 1


def test_sizes_that_are_no_whole_cells_work_too():
    rgb, alpha, target = pictures(2, 18, 21, seed=5)
    a, b = picture_terms(rgb, alpha, target), picture_terms_torch(rgb, alpha, target)
    assert all(float(getattr(a, name)) == pytest.approx(float(getattr(b, name))) for name in NAMES)


def test_shapes_must_belong_together():
    with pytest.raises(ValueError, match=r"target \[N, 4, H, W\]"):
        picture_terms(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8), torch.zeros(1, 8, 8, 4))
