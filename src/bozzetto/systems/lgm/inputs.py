"""Pictures and cameras -> the network's input channels, and the frame in which the network sees the world.

The network always looks through its first camera: :func:`canonical_frame` turns the world so that this camera has no
rotation, as LGM does. A photo of unknown elevation is then no special case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras, orbit_poses
from ...camera.cameras import matmul
from ...nn.backend import use_kernels
from .plane_sweep import sweep_channels, sweep_planes

if TYPE_CHECKING:
    from .network import LGMConfig

PICTURE = 11  # channels of a picture itself: rgb 3, alpha 1, known 1, rays 6; those of the plane sweep follow
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_rgb(rgb: Tensor) -> Tensor:
    """ImageNet normalisation of [..., 3, H, W] pictures in 0..1."""
    # Channel by channel: for a tensor of constants the host would wait until the device takes it.
    planes = zip(rgb.unbind(-3), IMAGENET_MEAN, IMAGENET_STD)
    return torch.stack([(plane - mean) / std for plane, mean, std in planes], dim=-3)


def lgm_inputs(rgb: Tensor, cameras: Cameras, size: int) -> Tensor:
    """LGM's nine channels: pictures on white [B, V, 3, H, W] in 0..1, cameras (B, V) -> [B, V, 9, size, size]."""
    b, v = rgb.shape[:2]
    x = rgb.flatten(0, 1)
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
    return torch.cat([normalize_rgb(x).unflatten(0, (b, v)), cameras.plucker(size).to(rgb)], dim=2)


def mini_inputs(rgba: Tensor, cameras: Cameras, known: Tensor, size: int, candidates: int = 0) -> Tensor:
    """lgm-mini's eleven channels: rgb on white 3, alpha 1, known 1, Plücker 6; and those of
    :func:`.plane_sweep.sweep_channels` where ``candidates`` is not 0.

    ``rgba`` [B, V, 4, size, size] straight alpha, ``cameras`` (B, V), ``known`` [B, V] in {0, 1}. Slots that are not known
    hold zeros and their rays: the network is asked what would be seen from there.
    """
    if use_kernels(rgba) and rgba.dtype == torch.float32 and rgba.shape[-2:] == (size, size) and not rgba.requires_grad:
        from .inputs_triton import input_channels

        planes = sweep_planes(candidates)
        channels = input_channels(rgba, cameras, known, planes, IMAGENET_MEAN, IMAGENET_STD)
        if candidates:
            from .plane_sweep_triton import sweep

            sweep(rgba, cameras, known, candidates, out=channels[:, :, 11:])
        return channels
    return mini_inputs_torch(rgba, cameras, known, size, candidates)


def mini_inputs_torch(rgba: Tensor, cameras: Cameras, known: Tensor, size: int, candidates: int = 0) -> Tensor:
    """:func:`mini_inputs` in plain PyTorch."""
    rgb, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    flag = known.to(rgba)[:, :, None, None, None]
    picture = normalize_rgb(rgb * alpha + 1 - alpha) * flag
    channels = [picture, alpha * flag, flag.expand_as(alpha), cameras.plucker(size).to(rgba)]
    if candidates:
        channels.append(sweep_channels(rgba, cameras, known, candidates).to(rgba))
    return torch.cat(channels, dim=2)


def inputs_of(rgba: Tensor, cameras: Cameras, known: Tensor, config: LGMConfig) -> Tensor:
    """:func:`mini_inputs` as the network of ``config`` takes them: [B, V, in_channels, S, S]."""
    return mini_inputs(rgba, cameras, known, config.input_size, config.candidates)


def arguments_of(rgba: Tensor, cameras: Cameras, known: Tensor, config: LGMConfig) -> tuple[Tensor, ...]:
    """What the network of ``config`` is called with: :func:`inputs_of`, and cameras for those that look again (cascade.py)."""
    inputs = inputs_of(rgba, cameras, known, config)
    return (inputs, cameras.camera_to_world, cameras.intrinsics) if config.cascade else (inputs,)


def canonical_frame(cameras: Cameras) -> Tensor:
    """World -> network frame, [B, 4, 4]: the rotation about the origin that leaves the first camera without rotation."""
    rotation = cameras.camera_to_world[:, 0, :3, :3].transpose(-1, -2)
    matrix = torch.eye(4, dtype=rotation.dtype, device=rotation.device).repeat(rotation.shape[0], 1, 1)
    matrix[:, :3, :3] = rotation
    return matrix


def to_frame(cameras: Cameras, matrix: Tensor) -> Cameras:
    """Cameras (B, V) seen in the frame that rigid matrices [B, 4, 4] lead to."""
    return Cameras(matmul(matrix[:, None].to(cameras.camera_to_world), cameras.camera_to_world), cameras.intrinsics)


_CANDIDATES = 8  # directions around the first camera from which an unseen side may be imagined


def query_cameras(cameras: Cameras, count: int) -> Cameras:
    """``count`` further cameras per object, where the given ones (B, V) see least.

    They stand on the first camera's circle (around its own up axis, at its distance, with its intrinsics), each as far as
    possible from all cameras before it; ties go to the smaller azimuth. ``cameras`` are in the network's frame.
    """
    b = cameras.batch_shape[0]
    device, dtype = cameras.device, cameras.camera_to_world.dtype
    azimuths = torch.arange(_CANDIDATES, dtype=torch.float64) * (360.0 / _CANDIDATES)
    ring = orbit_poses(azimuths, 0.0, 1.0).to(device, dtype)  # [8, 4, 4], unit distance
    directions = ring[:, :3, 3]
    taken = F.normalize(cameras.positions, dim=-1)  # [B, V, 3]
    closest = (taken[:, :, None] * directions).sum(-1).amax(dim=1)  # cosine to the nearest camera, [B, 8]
    radius = cameras.positions[:, 0].norm(dim=-1)
    poses = []
    for _ in range(count):
        preference = torch.arange(_CANDIDATES, device=device, dtype=dtype) * 1e-4
        pick = (closest + preference).argmin(dim=-1)  # [B]
        pose = ring[pick].clone()
        pose[:, :3, 3] *= radius[:, None]
        poses.append(pose)
        closest = torch.maximum(closest, (directions[pick][:, None] * directions).sum(-1))
    return Cameras(torch.stack(poses, dim=1), cameras.intrinsics[:, :1].expand(b, count, 4))


def camera_above(cameras: Cameras) -> Cameras:
    """(B, 1): above the object as the first of the given cameras (B, V) sees it, at its distance, with its intrinsics.

    Four cameras around an object leave its top out, and rays that meet a table's top at a slant say little of it.
    ``cameras`` are in the network's frame, where the first has no rotation; the picture's upper side is away from that one.
    """
    b = cameras.batch_shape[0]
    first = cameras.camera_to_world[:, :1]
    right, up, back = (torch.zeros(3, device=cameras.device, dtype=first.dtype) for _ in range(3))
    right[0], up[2], back[1] = 1.0, -1.0, 1.0
    pose = torch.eye(4, device=cameras.device, dtype=first.dtype).repeat(b, 1, 1, 1)  # [B, 1, 4, 4]
    pose[..., :3, :3] = torch.stack([right, up, back], dim=-1)
    pose[..., 1, 3] = cameras.positions[:, :1].norm(dim=-1)
    return Cameras(pose, cameras.intrinsics[:, :1])
