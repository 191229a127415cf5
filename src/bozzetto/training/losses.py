"""What a rendering is compared by: LGM's loss, and the two picture measures PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_SIGMA = 1.5  # pixels; window of 11, as in the paper
SSIM_RADIUS = 5


@dataclass
class ImageLoss:
    """Scalars with gradients: ``total`` is the weighted sum of the others (unweighted)."""

    total: Tensor
    rgb: Tensor
    alpha: Tensor
    perceptual: Tensor


def over(rgb: Tensor, alpha: Tensor, background: float | Tensor = 1.0) -> Tensor:
    """Straight colours ``rgb`` [..., H, W, 3] with ``alpha`` [..., H, W] composited on ``background``."""
    alpha = alpha[..., None]
    return rgb * alpha + background * (1 - alpha)


def image_loss(
    rgb: Tensor,
    alpha: Tensor,
    target_rgb: Tensor,
    target_alpha: Tensor,
    *,
    background: float | Tensor = 1.0,
    alpha_weight: float = 1.0,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    perceptual_weight: float = 1.0,
) -> ImageLoss:
    """Mean squared error of colour, plus that of alpha, plus a perceptual distance (LGM's loss).

    Args:
        rgb: [..., H, W, 3] rendered on ``background``.
        alpha: [..., H, W] rendered.
        target_rgb: [..., H, W, 3] straight colours; composited here with ``target_alpha``.
        target_alpha: [..., H, W].
        background: what ``rgb`` was rendered on, a number or rgb broadcastable to ``rgb``.
        alpha_weight, perceptual_weight: factors of their terms.
        perceptual: distance of two batches of pictures [N, 3, H, W] in 0..1, giving [N].

    Computed in float32 whatever the inputs are.
    """
    if rgb.shape != target_rgb.shape or alpha.shape != target_alpha.shape or rgb.shape[:-1] != alpha.shape:
        raise ValueError(
            f"shapes differ: rgb {tuple(rgb.shape)} and {tuple(target_rgb.shape)}, "
            f"alpha {tuple(alpha.shape)} and {tuple(target_alpha.shape)}"
        )
    rgb, alpha, target_alpha = rgb.float(), alpha.float(), target_alpha.float()
    target = over(target_rgb.float(), target_alpha, background)
    rgb_term, alpha_term = F.mse_loss(rgb, target), F.mse_loss(alpha, target_alpha)
    total = rgb_term + alpha_weight * alpha_term
    perceptual_term = rgb.new_zeros(())
    if perceptual is not None and perceptual_weight > 0:
        perceptual_term = perceptual(_planes(rgb), _planes(target)).float().mean()
        total = total + perceptual_weight * perceptual_term
    return ImageLoss(total, rgb_term, alpha_term, perceptual_term)


def psnr(image: Tensor, target: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in 0..1; the mean error is taken over ``dims`` (default: all).

    LGM reports it over a whole batch; the usual protocol is one value a picture (``dims=(-3, -2, -1)``), averaged. Capped
    at 100 dB, which stands for equal pictures.
    """
    error = (image.float() - target.float()).square()
    error = error.mean() if dims is None else error.mean(dim=dims)
    return -10 * torch.log10(error.clamp_min(1e-10))


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of pictures in 0..1, one value a picture: [N]; differentiable, float32.

    Pictures are [N, H, W, 3] or [N, 3, H, W] (told apart by where the 3 is; channels last wins). Gaussian window of 11
    pixels, sigma 1.5, population variances, borders of 5 pixels left out, as in Wang et al., "Image Quality
    Assessment: From Error Visibility to Structural Similarity", 2004; channels averaged. On pictures below 11 pixels the
    window is smaller.
    """
    if image.shape != target.shape or image.ndim != 4:
        raise ValueError(
            f"expected two equal shapes [N, H, W, 3] or [N, 3, H, W], got {image.shape} and {target.shape}"
        )
    a, b = _planes(image.float()), _planes(target.float())
    # Planes as the channels of one picture: a depthwise convolution, ten times as fast on a CPU as one over a batch of planes.
    a, b = a.reshape(1, -1, *a.shape[-2:]), b.reshape(1, -1, *b.shape[-2:])  # [1, N * 3, H, W]
    radius = min(SSIM_RADIUS, (min(a.shape[-2:]) - 1) // 2)
    offset = torch.arange(-radius, radius + 1, device=a.device, dtype=torch.float32)
    window = torch.exp(-0.5 * (offset / SSIM_SIGMA).square())
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        planes = x.shape[1]
        x = F.conv2d(x, window.view(1, 1, -1, 1).expand(planes, 1, -1, 1), groups=planes)
        return F.conv2d(x, window.view(1, 1, 1, -1).expand(planes, 1, 1, -1), groups=planes)

    # The 5 blurred fields; autocast would lose the small variances.
    with torch.autocast(a.device.type, enabled=False):
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
        covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    score = score / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))
    return score.reshape(image.shape[0], -1).mean(dim=1)


def strided_ssim(image: Tensor, target: Tensor, window: int = 8, stride: int = 4) -> Tensor:
    """SSIM over plain square windows that overlap by half, [N]; a tenth of :func:`ssim`'s cost, for use as a loss.

    Same inputs as :func:`ssim`. The windows are averages without weights and lie ``stride`` pixels apart.
    """
    if image.shape != target.shape or image.ndim != 4:
        raise ValueError(
            f"expected two equal shapes [N, H, W, 3] or [N, 3, H, W], got {image.shape} and {target.shape}"
        )
    a, b = _planes(image.float()), _planes(target.float())
    window = min(window, *a.shape[-2:])

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a.square(), mean(b * b) - mean_b.square()
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    score = score / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))
    return score.reshape(image.shape[0], -1).mean(dim=1)


def _planes(image: Tensor) -> Tensor:
    """[..., H, W, 3] or [..., 3, H, W] as [N, 3, H, W]."""
    if image.shape[-1] == 3:
        return image.reshape(-1, *image.shape[-3:]).permute(0, 3, 1, 2)
    if image.shape[-3] == 3:
        return image.reshape(-1, *image.shape[-3:])
    raise ValueError(f"expected pictures of three channels, got shape {tuple(image.shape)}")
