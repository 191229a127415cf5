"""What lgm-mini is told about its Gaussians: errors of pictures, of alpha and of depth, as one weighted sum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...gaussians import Gaussians
from ...raster import Rendering
from ...training.picture_loss import picture_terms
from .heads import ray_depth

PERCEPTUAL_VIEWS = 2  # of the novel views of each object; it costs as much as the splatting


@dataclass
class Objective:
    """Mean squared errors of rgb (on white and on black, half of each) and of alpha, and what has a weight here.

    Attributes:
        ssim: of 1 - SSIM. perceptual: of the perceptual distance on unseen views, whose network is in ``weights_file``.
        depth: of L1 on the distance along the ray where a slot's pixel shows the object; fades to a half over the run.
        opacity: of the mean of o (1 - o), against fog where the network cannot know; grows from 0 over the run.
        silhouette: of the mean absolute error of alpha: squared errors alone are least for a haze as dense as a place is
            likely to be filled, this one asks for the likelier of full and empty.
        several: what remains of ``perceptual``, ``opacity`` and ``silhouette`` for objects of which several views are known:
            there little is left to doubt, and they only cost accuracy.
    """

    ssim: float = 0.1
    perceptual: float = 0.0
    weights_file: str | None = None
    depth: float = 0.5
    opacity: float = 0.0
    silhouette: float = 0.0
    several: float = 1.0
    _network: nn.Module | None = field(default=None, init=False, repr=False)

    def __call__(
        self, raw: Tensor, gaussians: Gaussians, drawn: Rendering, batch: dict[str, Any], progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and its terms, of what the network gave and what was drawn from it (on black).

        ``psnr`` is that of the mean error; ``psnr_known`` and ``psnr_unseen`` are means over the pictures that the network was
        given and over the views that are no slots.
        """
        target, slots = batch["target"], batch["known"].shape[1]  # [B, n, 4, H, W] straight
        with torch.autocast(raw.device.type, enabled=False):
            terms = picture_terms(drawn.rgb.flatten(0, 1), drawn.alpha.flatten(0, 1), target.flatten(0, 1))
            parts = {"mse": terms.white, "mse_black": terms.black, "alpha": terms.alpha}
            total = 0.5 * (terms.white + terms.black) + terms.alpha
            if self.ssim:
                parts["ssim"] = terms.ssim
                total = total + self.ssim * (1 - terms.ssim)
            if self.depth:
                parts["depth"] = depth_error(raw, batch)
                total = total + self.depth * (1 - 0.5 * progress) * parts["depth"]
            single = (batch["known"].sum(1) == 1).float()
            price = single + self.several * (1 - single)  # [B]
            if self.opacity:
                fog = (gaussians.opacities * (1 - gaussians.opacities)).mean(1)
                parts["fog"] = fog.mean()
                total = total + self.opacity * progress * (price * fog).mean()
            if self.silhouette:
                silhouette = (drawn.alpha - target[:, :, 3]).abs().mean((1, 2, 3))
                parts["silhouette"] = silhouette.mean()
                total = total + self.silhouette * (price * silhouette).mean()
        if self.perceptual:
            # On unseen views only, which are drawn at random: the slots need no further push towards detail.
            unseen = slice(slots, slots + PERCEPTUAL_VIEWS)
            goal = target[:, unseen].flatten(0, 1)
            picture = (drawn.rgb + 1 - drawn.alpha[..., None])[:, unseen].flatten(0, 1).permute(0, 3, 1, 2)
            distance = self._perceptual_distance(picture, goal[:, :3] * goal[:, 3:] + 1 - goal[:, 3:])
            distance = distance.reshape(len(target), -1).mean(1)  # [B * n] -> [B]
            parts["perceptual"] = distance.mean()
            total = total + self.perceptual * (price * distance).mean()
        parts["psnr"] = decibels(terms.white.detach())
        each = decibels(terms.white_each).unflatten(0, target.shape[:2])  # [B, n]
        known = batch["known"].to(each)
        parts["psnr_known"] = (each[:, :slots] * known).sum() / known.sum()
        if target.shape[1] > slots:
            parts["psnr_unseen"] = each[:, slots:].mean()
        return total, parts

    def _perceptual_distance(self, pictures: Tensor, goals: Tensor) -> Tensor:
        if self._network is None:
            from ...training.perceptual import load_perceptual

            self._network = load_perceptual("mobilenet_v2", self.weights_file).to(pictures.device)
        return self._network(pictures, goals)


def decibels(error: Tensor) -> Tensor:
    """PSNR of mean squared errors."""
    return -10 * torch.log10(error.clamp_min(1e-10))


def depth_error(raw: Tensor, batch: dict[str, Any]) -> Tensor:
    """Mean |predicted - true| distance along the ray, world units, over the slot pixels that show the object."""
    slots, depth = batch["slots"], batch["depth"]  # depth [B, 4, S, S]: camera z
    size = raw.shape[-1]
    alpha = batch["rgba"][:, :, 3]
    step = depth.shape[-1] // size
    centre = step // 2  # the sample nearest to the pixel's centre: averaging depth over an edge has no meaning
    depth, alpha = depth[..., centre::step, centre::step], alpha[..., centre::step, centre::step]
    _, directions = slots.rays(size)
    forward = -slots.camera_to_world[..., None, None, :3, 2]
    distance = depth / (directions * forward).sum(-1).clamp_min(1e-3)
    weight = (alpha > 0.9) & (depth > 0)
    error = (ray_depth(raw, slots) - distance).abs() * weight
    return error.sum() / weight.sum().clamp_min(1)
