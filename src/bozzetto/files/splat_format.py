"""The ``.splat`` format: 32 bytes per Gaussian, no header, as antimatter15's and many other web viewers read it.

Row: position 3 x float32, scale 3 x float32, colour and opacity 4 x uint8, quaternion (w, x, y, z) 4 x uint8 where
value = 128 * component + 128. Colours have no view-dependent part.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch

from ..errors import SplatFileError
from ..gaussians import Gaussians
from .atomic import atomic_write_bytes
from .inputs import read_input
from .ply import prepare_for_file

ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def read_splat(path: str | PathLike[str]) -> Gaussians:
    """Read a ``.splat`` file as Gaussians of SH degree 0.

    Raises:
        SplatFileError: missing or empty file, a size that is no multiple of 32 bytes, NaN, infinite or negative values.
    """
    data = read_input(path, "a .splat file", SplatFileError)
    if len(data) % ROW.itemsize:
        raise SplatFileError(
            f"{path}: {len(data):,} bytes is not a whole number of 32-byte splats; the file is truncated or not .splat"
        )
    rows = np.frombuffer(data, ROW)
    means, scales = torch.from_numpy(rows["means"].copy()), torch.from_numpy(rows["scales"].copy())
    bad = ~(torch.isfinite(means).all(dim=-1) & torch.isfinite(scales).all(dim=-1) & (scales >= 0).all(dim=-1))
    if bool(bad.any()):
        raise SplatFileError(
            f"{path}: {int(bad.sum()):,} of {len(rows):,} splats have NaN, infinite positions or scales, or negative "
            "scales; the file is damaged or not .splat"
        )
    rgba = torch.from_numpy(rows["rgba"].astype(np.float32)) / 255
    quats = (torch.from_numpy(rows["quats"].astype(np.float32)) - 128) / 128
    length = quats.norm(dim=-1, keepdim=True)
    quats = torch.where(length > 0, quats / length, quats.new_tensor([1.0, 0.0, 0.0, 0.0]))
    return Gaussians.from_rgb(means, scales, quats, rgba[:, 3], rgba[:, :3])


def write_splat(gaussians: Gaussians, path: str | PathLike[str]) -> None:
    """Write unbatched Gaussians, the largest and most opaque first, so that a viewer can show a part of the file.

    Colours are the view-independent part, clipped to 0..1; colours and opacities are rounded to 8 bits.

    Raises:
        SplatFileError: there are no Gaussians (the format cannot say so), or values are NaN or infinite.
        OutputError: the file cannot be written.
    """
    gaussians = prepare_for_file(gaussians)
    if not len(gaussians):
        raise SplatFileError(f"{path}: a .splat file cannot be empty and there are no Gaussians; use .ply")
    weight = gaussians.scales.double().prod(dim=-1) * gaussians.opacities
    order = torch.argsort(weight, descending=True, stable=True)
    gaussians = gaussians.select(order)
    rows = np.empty(len(gaussians), ROW)
    rows["means"], rows["scales"] = gaussians.means.numpy(), gaussians.scales.numpy()
    rgba = torch.cat([gaussians.rgb, gaussians.opacities[:, None]], dim=-1)  # [N, 4]
    rows["rgba"] = (rgba * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    rows["quats"] = (gaussians.quats * 128 + 128).round().clamp(0, 255).to(torch.uint8).numpy()
    atomic_write_bytes(path, rows.tobytes())
