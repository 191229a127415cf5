"""One object of a rendered data set as LGM is trained on it: network input, target pictures and masks, target cameras.

Source: Tang et al. 2024 (arXiv 2402.05054), the data code of the published repository, without its augmentations (those are in
:mod:`bozzetto.training.augment`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...camera.cameras import matmul
from .inputs import lgm_inputs
from .network import LGMConfig


@dataclass
class RenderedItem:
    """What one training or evaluation step takes.

    Attributes:
        inputs: [K, 9, S, S], the first K views as the network sees them.
        images: [V, 3, O, O] on white, masks: [V, 1, O, O]; all views, the inputs included.
        cameras: (V,), in the frame in which the first one stands unrotated on +z at the network's distance.
    """

    inputs: Tensor
    images: Tensor
    masks: Tensor
    cameras: Cameras


def first_view_frame(cameras: Cameras, radius: float) -> Cameras:
    """Cameras (V,) moved rigidly so that the first has no rotation and stands at (0, 0, ``radius``)."""
    pose = cameras.camera_to_world
    home = torch.eye(4, dtype=pose.dtype, device=pose.device)
    home[2, 3] = radius
    return Cameras(matmul(home @ torch.linalg.inv(pose[0]), pose), cameras.intrinsics, cameras.names)


def rendered_item(rgba: Tensor, cameras: Cameras, config: LGMConfig, inputs: int = 4) -> RenderedItem:
    """Pictures [V, 4, H, W] with straight alpha and their cameras (V,) -> the item, with the first ``inputs`` as input.

    Distances count: the data is made for cameras at 1.5; for another ``config.radius`` scale the positions first.
    """
    if not 1 <= inputs <= len(rgba) or cameras.batch_shape != (len(rgba),):
        raise ValueError(
            f"expected cameras ({len(rgba)},) and 1..{len(rgba)} inputs, got {cameras.batch_shape}, {inputs}"
        )
    alpha = rgba[:, 3:]
    white = rgba[:, :3] * alpha + 1 - alpha
    cameras = first_view_frame(cameras, config.radius)
    size = (config.output_size, config.output_size)
    return RenderedItem(
        lgm_inputs(white[None, :inputs], cameras[None, :inputs], config.input_size)[0],
        F.interpolate(white, size, mode="bilinear", align_corners=False),
        F.interpolate(alpha, size, mode="bilinear", align_corners=False),
        cameras,
    )
