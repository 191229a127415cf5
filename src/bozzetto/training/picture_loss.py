"""How far drawn pictures are from the true ones, in four terms that recipes weigh: squared errors on white, on black and of
alpha, and structural similarity. :func:`picture_terms_torch` states it in plain PyTorch; on CUDA, Triton kernels make the
terms in two passes over the pictures and their gradient in one (see ``picture_kernels.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.triton_support import triton_usable
from .losses import strided_ssim

CELL = 4  # pixels: the kernels need pictures of whole cells
WINDOW = 2 * CELL  # pixels: the window of the similarity, which moves by a cell


@dataclass
class PictureTerms:
    """Scalars with gradients.

    Attributes:
        white, black: mean squared error of rgb over a white and a black page. Both are needed: white alone cannot tell a
            missing splat from a white one.
        alpha: mean squared error of alpha.
        ssim: :func:`~bozzetto.training.losses.strided_ssim` over the white page, the mean of all pictures; 1 is equal.
        white_each: [N] ``white`` of each picture, to be reported: without gradient.
    """

    white: Tensor
    black: Tensor
    alpha: Tensor
    ssim: Tensor
    white_each: Tensor


def picture_terms(rgb: Tensor, alpha: Tensor, target: Tensor) -> PictureTerms:
    """Compare drawn pictures with true ones, in float32.

    Args:
        rgb: [N, H, W, 3] drawn on black, that is, multiplied by alpha.
        alpha: [N, H, W] drawn.
        target: [N, 4, H, W] straight colours and alpha, 0..1; takes no gradient from the kernels.

    Raises :class:`ValueError` for shapes that do not belong together.
    """
    n, height, width = alpha.shape
    if rgb.shape != (n, height, width, 3) or target.shape != (n, 4, height, width):
        raise ValueError(
            f"expected rgb [N, H, W, 3], alpha [N, H, W] and target [N, 4, H, W], got {tuple(rgb.shape)}, "
            f"{tuple(alpha.shape)} and {tuple(target.shape)}"
        )
    whole = height % CELL == 0 and width % CELL == 0 and min(height, width) >= WINDOW
    if rgb.is_cuda and whole and not target.requires_grad and has_triton():
        from .picture_kernels import PictureLoss

        terms, each = PictureLoss.apply(rgb.float(), alpha.float(), target.float())
        return PictureTerms(*terms.unbind(), each)
    return picture_terms_torch(rgb, alpha, target)


def picture_terms_torch(rgb: Tensor, alpha: Tensor, target: Tensor) -> PictureTerms:
    """:func:`picture_terms` in plain PyTorch."""
    rgb, alpha = rgb.float().permute(0, 3, 1, 2), alpha.float()[:, None]  # [N, 3, H, W], [N, 1, H, W]
    true_alpha = target[:, 3:].float()
    true_rgb = target[:, :3].float() * true_alpha
    white, true_white = rgb + 1 - alpha, true_rgb + 1 - true_alpha
    return PictureTerms(
        white=F.mse_loss(white, true_white),
        black=F.mse_loss(rgb, true_rgb),
        alpha=F.mse_loss(alpha, true_alpha),
        ssim=strided_ssim(white, true_white, WINDOW, CELL).mean(),
        white_each=(white - true_white).detach().square().mean((1, 2, 3)),
    )


def has_triton() -> bool:
    """Whether the kernels can run here and now."""
    return not torch.compiler.is_compiling() and triton_usable()
