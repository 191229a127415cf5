"""The two training steps that train_step.py measures, in parts: lgm-mini's recipe, and LGM big as its paper trains it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster import Rendering, rasterize
from bozzetto.systems.lgm.heads import lgm_head, ray_head
from bozzetto.systems.lgm.inputs import lgm_inputs
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.recipe import MiniRecipe
from bozzetto.training.losses import image_loss

Batch = dict[str, Any]
BLOCKS = ("ResnetBlock", "MVAttention")  # class names: what the U-Nets of the LGM family are made of


def checkpoint_activations(module: nn.Module, blocks: tuple[str, ...] = BLOCKS) -> int:
    """Have every block of these classes keep only its input and compute its activations anew in the backward pass.

    Changes ``module`` in place (not its parameters' names); returns how many blocks that are. Outermost blocks only. Copy the
    module before this, not after: a copy's blocks would run the original's.
    """
    if type(module).__name__ in blocks:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
        return 1
    return sum(checkpoint_activations(child, blocks) for child in module.children())


class Mini:
    """lgm-mini: its slots and four views more are supervised, at 256²; objects are rendered in the step."""

    def __init__(self, batch: int, name: str = "mini") -> None:
        size = preset(name).input_size
        # The same objects serve every step, so that making them, which worker processes do ahead of time, is not measured.
        self.recipe = MiniRecipe(preset=name, batch_size=batch, block=batch, repeats=10**9, render_size=size)
        self.batch_size, self.size, self.views = batch, size, self.recipe.config.slots + self.recipe.novel_views
        self.title = f"{name}, {batch} objects, {self.views} views of {size}²"

    def build(self) -> nn.Module:
        return self.recipe.build()

    def batches(self, device: torch.device) -> Iterator[Batch]:
        return self.recipe.batches(0, 0, 0, 1, device)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return self.recipe.model_inputs(batch)

    def head(self, raw: Tensor, batch: Batch) -> Gaussians:
        return ray_head(raw, batch["slots"], batch["input_rgba"], batch["known"])

    def loss(self, raw: Tensor, gaussians: Gaussians, drawn: Rendering, batch: Batch) -> Tensor:
        return self.recipe.objective(raw, gaussians, drawn, batch, 0.5)[0]

    background = None  # black


class Big:
    """LGM big: 4 input views of 256², 8 supervised views of 512², squared errors of colour and alpha (no LPIPS).

    The Gaussians of an untrained network all lie in the origin, which no rasterizer is made for: the network's channels are
    small corrections of a sphere of small Gaussians instead. Pictures are on the device already.
    """

    views = 8

    def __init__(self, batch: int) -> None:
        self.config = preset("big")
        self.batch_size, self.size = batch, self.config.output_size
        self.title = f"LGM big, {batch} objects, {self.views} views of {self.size}²"

    def build(self) -> nn.Module:
        return LGM(self.config)

    def batches(self, device: torch.device) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(0)
        b, side = self.batch_size, self.config.splat_size
        azimuths = 90.0 * torch.arange(4)
        slots = Cameras.orbit(azimuths, 0.0, self.config.radius, self.config.fov_y)
        others = 360 * torch.rand(self.views - 4, generator=generator)
        both = Cameras.cat([slots, Cameras.orbit(others, 20.0, self.config.radius, self.config.fov_y)], dim=0)

        def shared(cameras: Cameras) -> Cameras:
            return Cameras(*(x.expand(b, *x.shape) for x in (cameras.camera_to_world, cameras.intrinsics))).to(device)

        base = torch.zeros(b, 4, 14, side, side)
        direction = F.normalize(torch.randn(b, 4, 3, side, side, generator=generator), dim=2)
        base[:, :, :3], base[:, :, 3], base[:, :, 4:7], base[:, :, 7] = 0.5 * direction, 2.0, -2.1, 1.0
        base[:, :, 11:14] = torch.randn(b, 4, 3, side, side, generator=generator)
        batch = {"base": base.to(device), "cameras": shared(both), "slots": shared(slots)}
        with torch.no_grad():
            truth = rasterize(lgm_head(batch["base"]), batch["cameras"], self.size, (1.0, 1.0, 1.0))
        batch["pictures"] = torch.rand(b, 4, 3, 256, 256, generator=generator).to(device)
        batch["target"] = (0.9 * truth.rgb, (truth.alpha > 0.5).float())
        while True:
            yield batch

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return (lgm_inputs(batch["pictures"], batch["slots"], self.config.input_size),)

    def head(self, raw: Tensor, batch: Batch) -> Gaussians:
        return lgm_head(batch["base"] + 0.01 * raw.float())

    def loss(self, raw: Tensor, gaussians: Gaussians, drawn: Rendering, batch: Batch) -> Tensor:
        return image_loss(drawn.rgb, drawn.alpha, *batch["target"]).total

    background = (1.0, 1.0, 1.0)


def draw(task: Mini | Big, gaussians: Gaussians, batch: Batch) -> Rendering:
    """All views of all objects in one call."""
    return rasterize(gaussians, batch["cameras"], task.size, task.background)


def draw_one_by_one(task: Mini | Big, gaussians: Gaussians, batch: Batch, gsplat: bool) -> Rendering:
    """A Python loop of one call per view, as the reference does it, of gsplat's rasterizer or of our own."""
    rasterization = None
    if gsplat:
        from gsplat import rasterization
    rgb, alpha, depth = [], [], []
    for b in range(task.batch_size):
        one = gaussians[b]
        for v in range(task.views):
            camera = batch["cameras"][b, v : v + 1]
            if rasterization is None:
                drawn = rasterize(one, camera, task.size, task.background)
                rgb.append(drawn.rgb[0])
                alpha.append(drawn.alpha[0])
                depth.append(drawn.depth[0])
                continue
            k = torch.zeros(1, 3, 3, device=one.device)
            pixels = camera.pixel_intrinsics(task.size)
            k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2] = pixels.unbind(-1)
            k[:, 2, 2] = 1
            page = torch.tensor([task.background or (0.0, 0.0, 0.0)], device=one.device)
            colour, opacity, _ = rasterization(
                one.means,
                one.quats,
                one.scales,
                one.opacities,
                one.sh,
                camera.view_matrices(),
                k,
                task.size,
                task.size,
                sh_degree=0,
                packed=False,
                backgrounds=page,
            )
            rgb.append(colour[0])
            alpha.append(opacity[0, ..., 0])
            depth.append(torch.zeros_like(alpha[-1]))
    shape = (task.batch_size, task.views)
    return Rendering(*(torch.stack(x).unflatten(0, shape) for x in (rgb, alpha, depth)))
