"""Measures of a drawn picture against the true one, a value per picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..training.losses import over, psnr, ssim

Distance = Callable[[Tensor, Tensor], Tensor]  # two batches [N, 3, H, W] in 0..1 -> [N]
_BATCH = 8  # pictures in one call: more only cost memory


@dataclass
class PictureScores:
    """One value per picture, [V] each, float32 on the CPU.

    Attributes:
        psnr: dB over the whole picture.
        foreground: dB over the pixels that the true object covers at all; NaN where it covers none.
        ssim: Wang et al. 2004 (:func:`bozzetto.training.losses.ssim`).
        perceptual: distance of EfficientNet-lite0's features, or None. It is not LPIPS.
    """

    psnr: Tensor
    foreground: Tensor
    ssim: Tensor
    perceptual: Tensor | None = None

    def select(self, index: Sequence[int]) -> PictureScores:
        """The scores of some of the pictures."""
        chosen = torch.as_tensor(list(index), dtype=torch.long)
        return PictureScores(**{k: None if v is None else v[chosen] for k, v in vars(self).items()})

    def means(self) -> dict[str, float]:
        """Mean over the pictures of every measure; pictures without a foreground do not count in ``foreground``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: float(v.double().nanmean()) for k, v in values.items() if v is not None}


def on_white(rgba: Tensor) -> Tensor:
    """Straight-alpha pictures [..., H, W, 4] -> [..., H, W, 3] on white."""
    return over(rgba[..., :3], rgba[..., 3])


@torch.no_grad()
def score_pictures(drawn: Tensor, truth: Tensor, perceptual: Distance | None = None) -> PictureScores:
    """Compare pictures with the truth, on white.

    Args:
        drawn: [V, H, W, 3] on white; values outside 0..1 are clamped, NaN is black: it must not count as no picture.
        truth: [V, H, W, 4], straight alpha.
        perceptual: the distance of two batches; None leaves it out.

    Raises:
        ValueError: shapes differ.
    """
    if drawn.shape[:-1] != truth.shape[:-1] or drawn.shape[-1] != 3 or truth.shape[-1] != 4 or drawn.ndim != 4:
        raise ValueError(f"expected [V, H, W, 3] and [V, H, W, 4], got {tuple(drawn.shape)} and {tuple(truth.shape)}")
    drawn, goal = drawn.float().nan_to_num(nan=0.0).clamp(0, 1), on_white(truth.float())
    covered = (truth[..., 3] > 0).float()
    error = (drawn - goal).square().mean(-1)  # [V, H, W]
    count = covered.sum((-1, -2))
    inside = (error * covered).sum((-1, -2)) / count
    foreground = -10 * torch.log10(inside.clamp_min(1e-10))

    def in_batches(distance: Distance) -> Tensor:
        a, b = drawn.movedim(-1, 1), goal.movedim(-1, 1)  # [V, 3, H, W]
        parts = [distance(a[i : i + _BATCH], b[i : i + _BATCH]) for i in range(0, len(a), _BATCH)]
        return torch.cat(parts).float().cpu()

    return PictureScores(
        psnr(drawn, goal, dims=(-3, -2, -1)).cpu(),
        torch.where(count > 0, foreground, foreground.new_tensor(float("nan"))).cpu(),
        in_batches(ssim),
        None if perceptual is None else in_batches(perceptual),
    )
