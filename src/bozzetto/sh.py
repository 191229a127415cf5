"""Real spherical harmonics of degree 0 to 3, in the order and with the signs of 3D Gaussian Splatting (Kerbl et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Basis values [..., (degree + 1)^2] for unit ``directions`` [..., 3]."""
    if not 0 <= degree <= 3:
        raise ValueError(f"spherical harmonics of degree 0 to 3 are supported, got {degree}")
    x, y, z = directions.unbind(-1)
    out = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        out += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        out += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        out += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(out, dim=-1)


def rotate_sh(sh: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients [..., K, 3] of the same colours after the object is turned by ``rotation`` [3, 3].

    Each degree is mapped by the matrix that makes the basis agree on a fixed set of directions (solved in float64, exact
    to rounding because each degree is closed under rotation).
    """
    k = sh.shape[-2]
    if k == 1:
        return sh
    degree = {4: 1, 9: 2, 16: 3}[k]
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator, dtype=torch.float64), dim=-1)
    before = sh_basis(directions @ rotation.double().cpu(), degree)  # object-frame directions: R^T d
    after = sh_basis(directions, degree)
    out = sh.clone()
    for band in range(1, degree + 1):
        span = slice(band * band, (band + 1) ** 2)
        matrix = torch.linalg.lstsq(after[:, span], before[:, span]).solution  # Y(R^T d) = Y(d) @ matrix
        out[..., span, :] = matrix.to(sh) @ sh[..., span, :]
    return out
