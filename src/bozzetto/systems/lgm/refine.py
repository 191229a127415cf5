"""The second look: what the network made of its pictures, drawn from the same cameras, as further input channels.

One pass has to settle where surfaces are before it sees that two slots disagree about them. In the next pass each slot is shown
the Gaussians of all slots as its camera sees them, beside its own raw channels, and the same weights say what to change: a
step of learned optimisation, as in Adler and Oektem 2017 ("Learned primal-dual reconstruction") and, for Gaussians, Chen et
al. 2024 ("G3R").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...camera import Cameras
from ...gaussians import Gaussians
from .heads import ray_head

if TYPE_CHECKING:
    from .network import LGMConfig

DRAWN = 6  # channels: rgb on black 3, alpha 1, distance 1, and 1 everywhere
DEPTH_SCALE = 0.9  # world units: distance from the object's centre, along the ray, that counts as 1
RAW_RANGE = 8.0  # raw channels are shown within it


def feedback_planes(input_size: int, splat_size: int, raw_channels: int = 14) -> int:
    """How many input channels of ``input_size`` pixels hold the drawn and the raw channels of ``splat_size`` pixels."""
    fold = (input_size // splat_size) ** 2
    planes, rest = divmod(DRAWN + raw_channels, fold)
    if rest or input_size % splat_size:
        raise ValueError(f"{DRAWN + raw_channels} channels of {splat_size} pixels do not fill channels of {input_size}")
    return planes


def raw_before(inputs: Tensor, config: LGMConfig) -> Tensor:
    """The raw channels of the pass before, [N, 14, h, h], out of the network's input [N, Cin, S, S]; zeros in the first pass."""
    planes = feedback_planes(config.input_size, config.splat_size, config.out_channels)
    folded = F.pixel_unshuffle(inputs[:, -planes:], config.input_size // config.splat_size)
    return folded[:, DRAWN:]


@torch.no_grad()
def feedback_channels(raw: Tensor, gaussians: Gaussians, slots: Cameras, input_size: int) -> Tensor:
    """Input channels [B, V, feedback_planes(...), S, S] of the next pass.

    Args:
        raw: [B, V, 14, h, h], what the network said.
        gaussians: [B, N], made from it.
        slots: (B, V), in the frame of the Gaussians.
        input_size: S, a multiple of h.
    """
    from ...raster import rasterize

    size = raw.shape[-1]
    with torch.autocast(raw.device.type, enabled=False):
        drawn = rasterize(gaussians, slots, size)
        _, directions = slots.rays(size)  # [B, V, h, h, 3]
        cosine = -(directions * slots.camera_to_world[..., None, None, :3, 2]).sum(-1)  # ray to optical axis
        # Weighted by alpha, as the colours are: sum of weight * (distance - distance of the object's centre).
        centre = slots.positions.norm(dim=-1)[..., None, None]
        distance = (drawn.depth / cosine.clamp_min(1e-3) - drawn.alpha * centre) / DEPTH_SCALE
        shown = torch.stack([*drawn.rgb.unbind(-1), drawn.alpha, distance, torch.ones_like(distance)], dim=2)
        both = torch.cat([shown, raw.float().clamp(-RAW_RANGE, RAW_RANGE)], dim=2)  # [B, V, 20, h, h]
        return F.pixel_shuffle(both.flatten(0, 1), input_size // size).unflatten(0, raw.shape[:2])


@torch.no_grad()
def look_again(model: nn.Module, inputs: Tensor, slots: Cameras, rgba: Tensor, known: Tensor) -> None:
    """Put what the network makes of ``inputs`` [B, V, Cin, S, S] into their last channels, in place: for training.

    Two objects of three get it; the others stay in their first pass, which has to be learned, too. The gradient of the step
    that follows is that of its own pass alone.
    """
    b, size = len(inputs), inputs.shape[-1]
    rows = torch.arange(b, device=inputs.device)
    rows = torch.cat([rows[1::3], rows[2::3]])
    if not len(rows):
        return
    device = inputs.device.type
    # Weights that are cast without gradients must not be found in autocast's cache by the pass with gradients.
    dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    with torch.autocast(device, dtype, enabled=enabled, cache_enabled=False):
        raw = model(inputs[rows])
    slots = Cameras(slots.camera_to_world[rows], slots.intrinsics[rows])
    with torch.autocast(device, enabled=False):
        gaussians = ray_head(raw, slots, rgba[rows], known[rows])
    shown = feedback_channels(raw, gaussians, slots, size)
    inputs[rows, :, -shown.shape[2] :] = shown.to(inputs.dtype)
