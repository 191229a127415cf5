"""What is measured, as functions: views in, Gaussians out; or a picture in, a mesh out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera import Cameras
from ..errors import InputError, MissingDependencyError
from ..gaussians import Gaussians
from ..mesh import Mesh
from ..options import REFINE_STEPS
from .pictures import Distance
from .protocol import TASKS

Reconstruct = Callable[[Tensor, Cameras], Gaussians]


@dataclass
class Measured:
    """A model under test.

    Attributes:
        name: in the report.
        device: where its Gaussians are drawn.
        reconstruct: posed pictures [K, H, W, 4] with straight alpha and their cameras (K,) -> Gaussians in the cameras' world;
            None for a model that makes a mesh in a frame of its own.
        tasks: which of :data:`protocol.TASKS` it can do.
        photo_to_mesh: one picture [H, W, 4] -> a mesh in any frame, or None.
    """

    name: str
    device: torch.device
    reconstruct: Reconstruct | None
    tasks: tuple[str, ...]
    photo_to_mesh: Callable[[Tensor], Mesh] | None = None


def lgm_model(name: str, network: torch.nn.Module, device: torch.device | str, refine: int = REFINE_STEPS) -> Measured:
    """A loaded network of the LGM family. Only lgm-mini's kind can imagine what a single view does not show.

    Several views are refined on in ``refine`` steps, as ``bozzetto views`` does.
    """
    from ..fitting.refine import refine_gaussians
    from ..systems.lgm.reconstruct import reconstruct

    device = torch.device(device)
    network = network.to(device).eval()

    def run(rgba: Tensor, cameras: Cameras) -> Gaussians:
        rgba = rgba.permute(0, 3, 1, 2)  # [K, H, W, 4] -> [K, 4, H, W]
        gaussians = reconstruct(network, rgba[None], cameras[None])[0].prune()
        return refine_gaussians(gaussians, rgba, cameras, refine).prune() if len(rgba) > 1 and refine else gaussians

    tasks = tuple(TASKS) if network.config.head == "ray" else ("4view",)
    return Measured(name, device, run, tasks)


def photo_model(name: str, device: torch.device | str, seed: int = 0) -> Measured:
    """A model that takes a photo (see ``bozzetto models``): its mesh is measured, after alignment."""
    from ..api import image_to_3d, prepare

    prepare("photo", model=name, device=str(device))

    def run(rgba: Tensor) -> Mesh:
        asset = image_to_3d(rgba, model=name, device=str(device), seed=seed)
        if asset.mesh is None:
            raise InputError(f"{name} made no mesh")
        return asset.mesh

    return Measured(name, torch.device(device), None, (), run)


def load_model(name: str, device: torch.device | str, refine: int = REFINE_STEPS) -> Measured:
    """A model by its name or weights file; ``refine`` is of :func:`lgm_model`.

    Raises:
        InputError: it makes neither Gaussians of posed views nor a mesh of a photo.
    """
    from ..pipelines import PIPELINES
    from ..systems.lgm.network import LGM
    from ..zoo import ENTRIES, load

    named = name
    if named in PIPELINES and "views" in PIPELINES[named].inputs:
        named = PIPELINES[named].weights["views"][0]
    elif named in PIPELINES and "photo" in PIPELINES[named].inputs:
        return photo_model(named, device)
    fitting = [e.name for e in ENTRIES.values() if "views" in e.inputs]
    photos = [p.name for p in PIPELINES.values() if "photo" in p.inputs]
    refused = f"{name} can be measured neither on views ({', '.join(fitting)}) nor on photos ({', '.join(photos)})"
    if named not in fitting and (named in PIPELINES or named in ENTRIES):
        raise InputError(refused)
    network = load(named, str(device))
    if not isinstance(network, LGM):
        raise InputError(refused)
    return lgm_model(name, network, device, refine)


def load_distance(given: str | None, device: torch.device) -> tuple[Distance | None, str | None]:
    """The perceptual distance and the name of its network.

    Args:
        given: weights file or folder; "none" for no distance; None for one only if its weights are on this machine.
    """
    from ..training.perceptual import load_perceptual

    if given == "none":
        return None, None
    try:
        return load_perceptual("efficientnet_lite0", given, device), "efficientnet_lite0"
    except MissingDependencyError:
        if given is not None:
            raise
        return None, None
