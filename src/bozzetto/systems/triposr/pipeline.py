"""TripoSR on one photo: preprocess, one forward pass, a field, a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...asset import Asset
from ...camera.conventions import triposr_to_world
from ...errors import InputError
from ...job import Job
from ...mesh import Mesh
from ...surface.field_mesh import field_to_mesh
from .checkpoint import load_triposr
from .field import TriposrField
from .inference import InferenceTripoSR
from .network import TripoSR
from .options import PhotoOptions
from .preprocess import prepare_photo, resize_photos


def load_network(path: str | Path, device: torch.device) -> TripoSR | InferenceTripoSR:
    """The network as it runs fastest on ``device``: float16 products on a GPU, float32 on a CPU.

    Raises:
        CheckpointError: as :func:`.checkpoint.load_triposr`.
    """
    network = load_triposr(path, device)
    return InferenceTripoSR(network) if device.type == "cuda" else network


@torch.no_grad()
def photos_to_fields(
    network: TripoSR | InferenceTripoSR, photos: Sequence[Tensor], foreground_ratio: float = 0.85, chunk: int = 1 << 17
) -> list[TriposrField]:
    """Cut-out photos [H, W, 4] in 0..1, straight alpha, of any sizes -> one field each; one forward pass for all.

    Raises:
        ForegroundError: a photo has no foreground. InputError: the network's result is not finite.
    """
    config = network.config
    device = next(network.decoder.parameters()).device
    prepared = [prepare_photo(p.to(device), foreground_ratio) for p in photos]
    images = resize_photos(prepared, config.cond_image_size)
    triplanes = network(images).float()
    finite = bool(torch.isfinite(triplanes).all())
    if not finite and isinstance(network, InferenceTripoSR) and network.dtype == torch.float16:
        triplanes = network.in_precision(torch.bfloat16)(images)  # its range is float32's
        finite = bool(torch.isfinite(triplanes).all())
    if not finite:
        raise InputError(
            "TripoSR's network gave NaN or infinity; its weights are damaged, or half precision overflowed"
        )
    return [TriposrField(t, network.decoder, config.renderer, chunk) for t in triplanes]


def field_mesh(field: TriposrField, options: PhotoOptions, job: Job) -> Mesh:
    """The field's surface, y up, the photo's side facing +z."""
    mesh = field_to_mesh(
        field.density,
        field.colour,
        bounds=field.bounds,
        resolution=options.resolution,
        level=options.threshold,
        texture=options.texture,
        texture_size=options.texture_size,
        max_faces=options.max_faces,
        chunk=options.chunk_size,
        device=field.device,
        progress=job.tell,
        grid=field.grid,
    )
    return mesh.transformed(triposr_to_world(torch.eye(4)))


def from_photo(rgba: Tensor, options: PhotoOptions, job: Job) -> Asset:
    """Cut-out [H, W, 4] -> a textured mesh and the field it was made from, y up, the photo's side facing +z.

    Raises:
        ForegroundError: no foreground. MeshError: the density never reaches the threshold. CheckpointError: bad weights.
    """
    with job.stage("load_model"):
        job.tell("loading triposr", 0.0)
        network = load_network(job.locate("triposr"), job.device)
    with job.stage("network"):
        job.tell("reconstructing", 0.0)
        field = photos_to_fields(network, [rgba], options.foreground_ratio, options.chunk_size)[0]
    del network  # the field keeps the decoder alone
    mesh = None
    if job.mesh:
        with job.stage("mesh"):
            mesh = field_mesh(field, options, job)
    job.report["triposr"] = {"radius": field.config.radius, "samples_per_ray": field.config.num_samples_per_ray}
    return Asset(mesh=mesh, field=field, mesh_format=options.mesh_format)
