"""A loaded LGM network as a function: posed cut-outs -> Gaussians. Used by the pipelines and by the evaluation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...camera import Cameras
from ...errors import InputError
from ...gaussians import Gaussians
from ...nn.graphs import captured
from .cameras import SLOTS
from .heads import lgm_head, ray_head
from .inputs import arguments_of, camera_above, canonical_frame, lgm_inputs, query_cameras, to_frame
from .network import LGM

MAX_VIEWS = 8


def autocast_dtype(device: torch.device) -> torch.dtype:
    """The arithmetic that is fastest at no visible cost: bf16 where the hardware multiplies it natively, else fp32."""
    if device.type == "cuda":
        return torch.bfloat16
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def published_dtype(device: torch.device) -> torch.dtype:
    """The arithmetic with which the authors run LGM's and L4GM's large networks: fp16 on CUDA; fp32 elsewhere."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _cpu_has_bf16() -> bool:
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(check and check())


def run(model: nn.Module, arguments: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """The network's raw channels, computed in ``dtype``: as it is where its weights have that dtype, else under autocast.

    ``arguments`` are its input channels, and cameras for networks that look again (``inputs.arguments_of``).

    On CUDA, a second call with inputs of the same shape is recorded as a graph (``bozzetto.nn.graphs``), which lives as long
    as the network: a single photo pays nothing for it, candidates and evaluations replay it.
    """
    inputs, *cameras = arguments
    device, own = inputs.device, next(model.parameters()).dtype
    call = captured(model) if device.type == "cuda" else model
    if own == dtype:
        return call(inputs.to(own), *cameras)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return call(inputs, *cameras)


@torch.no_grad()
def reconstruct(model: LGM, rgba: Tensor, cameras: Cameras, dtype: torch.dtype | None = None) -> Gaussians:
    """Gaussians [B, N] in the cameras' world frame; the object is expected at the origin, radius about 0.6.

    Args:
        model: network in evaluation mode; its device is used.
        rgba: [B, K, 4, H, W] straight alpha, 1 <= K <= 8, any size (resized to the network's).
        cameras: (B, K), looking at the object.
        dtype: arithmetic of the network; None picks: for LGM :func:`published_dtype` (its channels are positions, which bf16
            would round to a pixel), for lgm-mini :func:`autocast_dtype`.

    lgm-mini fills up to four slots with cameras of its own when fewer views are given, adds one from above where its
    configuration says so, and imagines what they see.
    """
    config = model.config
    device = next(model.parameters()).device
    b, k = rgba.shape[:2]
    if not 1 <= k <= MAX_VIEWS:
        raise InputError(f"LGM takes 1 to {MAX_VIEWS} views, got {k}")
    dtype = dtype or (autocast_dtype(device) if config.head == "ray" else published_dtype(device))
    rgba = resize_rgba(rgba.to(device, torch.float32), config.input_size)
    frame = canonical_frame(cameras.to(device, torch.float32))
    slots = to_frame(cameras.to(device, torch.float32), frame)
    if config.head == "ray":
        rgba, slots, known = _slots(rgba, slots, config.slots)
        raw = run(model, arguments_of(rgba, slots, known, config), dtype)
        gaussians = ray_head(raw.float(), slots, rgba, known)
    else:
        # LGM's frame has the first camera at distance `radius` on +z: the scale of the rays matters to it.
        inputs = lgm_inputs(rgba[:, :, :3] * rgba[:, :, 3:] + 1 - rgba[:, :, 3:], slots, config.input_size)
        gaussians = lgm_head(run(model, (inputs,), dtype).float(), config.rotation)
    back = [gaussians[i].transformed(frame[i].T) for i in range(b)]
    return Gaussians(*(torch.stack(parts) for parts in zip(*(g.tensors() for g in back))))


def _slots(rgba: Tensor, cameras: Cameras, count: int) -> tuple[Tensor, Cameras, Tensor]:
    """Pictures [B, K, 4, S, S] and cameras (B, K), filled up with views to be imagined; and which are known, [B, V]."""
    b, k = rgba.shape[:2]
    known = torch.ones(b, k, device=rgba.device)
    more = [query_cameras(cameras, SLOTS - k)] if k < SLOTS else []
    if count > SLOTS:
        more.append(camera_above(cameras))
    if more:
        cameras = Cameras.cat([cameras, *more], dim=1)
        missing = cameras.batch_shape[1] - k
        rgba = torch.cat([rgba, rgba.new_zeros(b, missing, *rgba.shape[2:])], dim=1)
        known = torch.cat([known, known.new_zeros(b, missing)], dim=1)
    return rgba, cameras, known


def resize_rgba(rgba: Tensor, size: int) -> Tensor:
    """[B, V, 4, H, W] straight-alpha pictures -> [B, V, 4, size, size], weighted by alpha.

    Whole-number shrinking averages areas; everything else is antialiased bilinear.
    """
    if rgba.shape[-2:] == (size, size):
        return rgba.contiguous()
    b, v, _, h, w = rgba.shape
    flat = rgba.flatten(0, 1)
    premultiplied = torch.cat([flat[:, :3] * flat[:, 3:], flat[:, 3:]], dim=1)
    if h % size == 0 and w % size == 0:
        small = F.interpolate(premultiplied, (size, size), mode="area")
    else:
        small = F.interpolate(premultiplied, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return torch.cat([small[:, :3] / small[:, 3:].clamp_min(1e-4), small[:, 3:]], dim=1).unflatten(0, (b, v))
