"""Rasterizer scenes with known pictures and gradients, and the comparison of a back end with them.

``SCENES`` lists the parity scenes; ``LOCAL`` those that travel with the repository in tests/data/raster (the others lie
in the shared folder of reference data). ``check_scene(backend, scene, ...)`` runs a back end (signature in
:mod:`bozzetto.raster.api`) and compares values and gradients.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bozzetto.gaussians import SH_C0

PARAMETERS = ("means", "quats", "scales", "opacities", "sh", "background")
# file -> (tag of its loss weights, near, far)
SCENES = {
    "sh0_n50_64_black": ("rast.sh0_n50", 0.01, 1e10),
    "sh3_n200_64_white": ("rast.sh3_n200", 0.01, 1e10),
    "sh3_n500_128x96_random": ("rast.sh3_n500", 0.2, 100.0),
    "rgb_n100_64_2cam_white": ("rast.rgb_n100", 0.5, 2.5),
    "clamp_n60_64": ("rast.clamp", 0.01, 1e10),
}
LOCAL = ("sh0_n50_64_black", "clamp_n60_64", "sh3_n200_64_white")
LOCAL_FOLDER = Path(__file__).resolve().parents[1] / "data" / "raster"


@dataclass
class Scene:
    """Inputs of a back end (float64, one scene: leading dimension 1), the expected results and what to compare."""

    inputs: dict[str, Tensor]  # PARAMETERS, view, intrinsics
    height: int
    width: int
    near: float
    far: float
    expected: dict[str, Tensor]  # rgb, alpha, depth and the gradient of every parameter under its name
    weights: dict[str, Tensor]  # of the loss: rgb, alpha, depth; zero on fragile pixels
    keep: Tensor  # [1, V, H, W], False where rounding may flip a decision


def load_scene(path: Path) -> Scene:
    """The scene stored in ``path`` (npz)."""
    tag, near, far = SCENES[path.stem]
    with np.load(path) as file:
        arrays = {k: torch.from_numpy(np.asarray(v, dtype=np.float64)) for k, v in file.items()}
    expected = {name: arrays[name][None] for name in ("rgb", "alpha", "depth")}
    for name in ("means", "quats", "scales", "opacities"):
        expected["grad_" + name] = arrays["grad_" + name][None]
    if "in_sh" in arrays:
        sh, expected["grad_sh"] = arrays["in_sh"], arrays["grad_sh"][None]
    else:  # direct colours c = 0.5 + SH_C0 sh, hence d/dsh = SH_C0 d/dc
        sh = ((arrays["in_colors"] - 0.5) / SH_C0)[:, None, :]
        expected["grad_sh"] = SH_C0 * arrays["grad_colors"][None, :, None, :]
    expected["grad_background"] = arrays["grad_background"][None]
    k = arrays["Ks"]
    inputs = {name: arrays["in_" + name][None] for name in ("means", "quats", "scales", "opacities")}
    inputs |= {
        "sh": sh[None],
        "background": arrays["background"][None],
        "view": arrays["viewmats"][None],
        "intrinsics": torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], dim=-1)[None],
    }
    height, width = arrays["rgb"].shape[1:3]
    keep = (arrays["fragile"] == 0)[None]
    weights = {}
    for name in ("rgb", "alpha", "depth"):
        mask = keep[..., None] if name == "rgb" else keep
        weights[name] = _uniform(f"{tag}.w_{name}", tuple(arrays[name].shape))[None] * mask / (height * width)
    return Scene(inputs, height, width, near, far, expected, weights, keep)


def _uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """The loss weights of the parity data: uniform in -1..1, a pure function of name and shape, rounded to float32."""
    random = np.random.RandomState(zlib.crc32(("input:" + name).encode()))
    return torch.from_numpy((-1.0 + 2.0 * random.random_sample(shape)).astype(np.float32)).double()


def run_scene(backend: Callable, scene: Scene, dtype: torch.dtype, device: str = "cpu") -> dict[str, Tensor]:
    """Pictures and gradients of ``backend`` on ``scene``, float64 on the CPU, named as in ``Scene.expected``."""
    inputs = {k: v.to(device=device, dtype=dtype).contiguous() for k, v in scene.inputs.items()}
    for name in PARAMETERS:
        inputs[name].requires_grad_()
    pictures = backend(
        *(inputs[k] for k in ("means", "quats", "scales", "opacities", "sh", "view", "intrinsics", "background")),
        scene.height,
        scene.width,
        scene.near,
        scene.far,
    )
    out = dict(zip(("rgb", "alpha", "depth"), pictures))
    loss = sum((out[k] * w.to(device=device, dtype=dtype)).sum() for k, w in scene.weights.items())
    gradients = torch.autograd.grad(loss, [inputs[name] for name in PARAMETERS])
    out |= {"grad_" + name: g for name, g in zip(PARAMETERS, gradients)}
    return {k: v.detach().double().cpu() for k, v in out.items()}


def differences(scene: Scene, got: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference: pictures absolute, off fragile pixels; gradients relative to their largest entry."""
    worst = {}
    for name, expected in scene.expected.items():
        assert got[name].shape == expected.shape, f"{name}: {tuple(got[name].shape)}, expected {tuple(expected.shape)}"
        error = (got[name] - expected).abs()
        if name.startswith("grad_"):
            error = error / expected.abs().max()
        else:
            error = error[scene.keep]
        worst[name] = float(error.max()) if bool(torch.isfinite(error).all()) else float("inf")
    return worst


def check_scene(
    backend: Callable,
    path: Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    picture_limit: float = 2e-5,
    gradient_limit: float = 1e-4,
) -> dict[str, float]:
    """Assert that ``backend`` reproduces the scene in ``path``; returns the differences."""
    scene = load_scene(path)
    worst = differences(scene, run_scene(backend, scene, dtype, device))
    for name, value in worst.items():
        limit = gradient_limit if name.startswith("grad_") else picture_limit
        assert value <= limit, f"{path.stem}: {name} differs by {value:.2e}, allowed {limit:.0e}; all: {worst}"
    return worst
