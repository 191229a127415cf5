"""LGM's loss, PSNR and SSIM."""

import numpy as np
import pytest
import torch

from bozzetto.training.losses import image_loss, over, psnr, ssim


def test_loss_and_psnr_equal_lgm(shared, fill):
    golden = np.load(shared / "parity" / "lgm" / "lgm_loss.npz")

    def picture(name: str, channels: int) -> torch.Tensor:
        values = torch.from_numpy(fill.test_input(f"loss/{name}", (2, 6, channels, 32, 32)))
        return values.permute(0, 1, 3, 4, 2)  # channels last

    rgb, target = picture("pred", 3), picture("gt", 3)
    alpha, mask = picture("alpha", 1)[..., 0], picture("mask", 1)[..., 0]
    loss = image_loss(rgb, alpha, target, mask)
    assert float(loss.total) == pytest.approx(float(golden["loss"]), abs=1e-6)
    assert float(psnr(rgb, over(target, mask))) == pytest.approx(float(golden["psnr"]), abs=1e-5)
    assert float(loss.total) == pytest.approx(float(loss.rgb + loss.alpha))


def test_background_and_weights():
    rgb, alpha = torch.zeros(2, 8, 8, 3), torch.zeros(2, 8, 8)
    target, mask = torch.full((2, 8, 8, 3), 0.7), torch.zeros(2, 8, 8)
    assert float(image_loss(rgb, alpha, target, mask, background=0.0).total) == 0
    colours = torch.tensor([0.5, 0.0, 0.0])
    assert float(image_loss(rgb, alpha, target, mask, background=colours).rgb) == pytest.approx(0.25 / 3)
    constant = lambda a, b: torch.full((a.shape[0],), 2.0)  # noqa: E731
    loss = image_loss(rgb, alpha, target, mask + 1, perceptual=constant, alpha_weight=3, perceptual_weight=0.5)
    assert float(loss.total) == pytest.approx(0.49 + 3 * 1 + 0.5 * 2)


def test_perceptual_sees_planes():
    seen = []
    spy = lambda a, b: (seen.append((a.shape, b.shape)), a.mean((1, 2, 3)))[1]  # noqa: E731
    image_loss(
        torch.rand(2, 3, 8, 9, 3),
        torch.rand(2, 3, 8, 9),
        torch.rand(2, 3, 8, 9, 3),
        torch.rand(2, 3, 8, 9),
        perceptual=spy,
    )
    assert seen == [((6, 3, 8, 9), (6, 3, 8, 9))]


def test_loss_needs_equal_shapes():
    with pytest.raises(ValueError, match="shapes differ"):
        image_loss(torch.rand(2, 8, 8, 3), torch.rand(2, 8, 8, 1), torch.rand(2, 8, 8, 3), torch.rand(2, 8, 8, 1))


def test_psnr():
    a = torch.zeros(2, 4, 4, 3)
    b = a.clone()
    b[1] += 0.1
    assert torch.allclose(psnr(a, b, dims=(1, 2, 3)), torch.tensor([100.0, 20.0]), atol=1e-4)


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 40, 50, 3, generator=generator)
    return a, (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def test_ssim_equals_that_of_scikit_image():
    from skimage.metrics import structural_similarity

    a, b = pictures()
    expected = [
        structural_similarity(
            x.numpy(),
            y.numpy(),
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
        )
        for x, y in zip(a, b)
    ]
    assert np.allclose(ssim(a, b).numpy(), expected, atol=1e-5)
    assert torch.allclose(ssim(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)), ssim(a, b))


def test_ssim_of_equal_and_small_pictures_and_its_gradient():
    a, b = pictures()
    assert torch.allclose(ssim(a, a), torch.ones(2))
    assert ssim(a[:, :4, :5], b[:, :4, :5]).isfinite().all()
    a.requires_grad_()
    ssim(a, b).sum().backward()
    assert bool(a.grad.isfinite().all()) and float(a.grad.abs().max()) > 0


def test_ssim_refuses_other_shapes():
    with pytest.raises(ValueError, match="N, H, W, 3"):
        ssim(torch.rand(8, 8, 3), torch.rand(8, 8, 3))
    with pytest.raises(ValueError, match="three channels"):
        ssim(torch.rand(1, 8, 8, 4), torch.rand(1, 8, 8, 4))
