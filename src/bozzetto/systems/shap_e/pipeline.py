"""Shap-E on a user's prompt or photo: CLIP, diffusion, decoding, mesh. Only one network is in memory at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ...asset import Asset
from ...job import Job
from ...matting.recenter import recenter
from ...mesh import Mesh
from ...surface.field_mesh import coloured_mesh
from .checkpoint import load_diffusion, load_transmitter
from .clip import clean_prompt, load_clip_grid, load_clip_text
from .diffusion import draw_noise, sample
from .field import ShapEField, from_world, to_world
from .mesh import extract, sdf_grid
from .options import PhotoOptions, TextOptions
from .transmitter import ImplicitFields

PICTURE_SIZE = 512  # of the recentred photo, before CLIP's own reduction to 224


def photo_on_white(rgba: Tensor, foreground_ratio: float) -> Tensor:
    """Cut-out [H, W, 4] -> the object in the middle of a white square [S, S, 3].

    Raises :class:`bozzetto.errors.ForegroundError` when there is no foreground.
    """
    square = recenter(rgba, border=1 - foreground_ratio, size=PICTURE_SIZE)
    return square[..., :3] * square[..., 3:] + 1 - square[..., 3:]


def sample_latent(condition: Tensor, entry: str, kind: str, options: PhotoOptions | TextOptions, job: Job) -> Tensor:
    """One latent [rows * width] from a condition [1, E] or [1, E, L] and the diffusion model of a zoo entry."""
    with job.stage("load_model"):
        job.tell(f"loading {entry}", 0.0)
        model = load_diffusion(job.locate(entry), job.device, kind)
    with job.stage("sample"):
        noise = draw_noise(job.generator(), 1, model.config.latent_size)
        return sample(
            model,
            condition,
            noise,
            guidance=options.guidance,
            steps=options.steps,
            progress=lambda x, i: job.tell("sampling", (i + 1) / options.steps),
        )[0]


def fields_mesh(fields: ImplicitFields, options: PhotoOptions | TextOptions, job: Job) -> Mesh:
    """The surface of a shape in the house's axes, with a texture picture or vertex colours.

    Raises:
        MeshError: the shape has no surface.
    """

    def colour(points: Tensor) -> Tensor:
        return fields.stf_rgb(from_world(points))

    grid = sdf_grid(fields, options.resolution, lambda share: job.tell("surface", 0.5 * share))
    vertices, faces = extract(grid)
    return coloured_mesh(
        to_world(vertices).cpu(),
        faces.cpu(),
        colour,
        texture=options.texture,
        texture_size=options.texture_size,
        max_faces=options.max_faces,
        device=fields.device,
        progress=lambda stage, share: job.tell(stage, 0.5 + 0.5 * share),
    )


def decode(latent: Tensor, options: PhotoOptions | TextOptions, job: Job) -> Asset:
    """A latent -> mesh and field."""
    with job.stage("load_model"):
        job.tell("loading shap-e-transmitter", 0.0)
        transmitter = load_transmitter(job.locate("shap-e-transmitter"), job.device)
    with job.stage("decode"):
        fields = transmitter.fields(latent)
    del transmitter  # a gigabyte of projections; the fields keep the MLP alone
    mesh = None
    if job.mesh:
        with job.stage("mesh"):
            mesh = fields_mesh(fields, options, job)
    return Asset(mesh=mesh, field=ShapEField(fields), mesh_format=options.mesh_format)


@torch.no_grad()
def from_text(prompt: str, options: TextOptions, job: Job) -> Asset:
    """A prompt -> mesh and field, y up, the front to +z.

    Raises:
        InputError: the prompt is empty, or the network gave NaN. MeshError: an empty shape. CheckpointError: bad weights.
    """
    clean_prompt(prompt)  # before anything is downloaded
    with job.stage("load_model"):
        job.tell("loading clip-vit-l14", 0.0)
        clip = load_clip_text(job.locate("clip-vit-l14"), job.device)
    condition = clip([prompt])
    del clip
    entry = "shap-e-text-cap3d" if options.weights_variant == "cap3d" else "shap-e-text"
    latent = sample_latent(condition, entry, "text", options, job)
    job.report["shap_e"] = {"weights": entry, "latent_deviation": round(float(latent.std()), 4)}
    return decode(latent, options, job)


@torch.no_grad()
def from_photo(rgba: Tensor, options: PhotoOptions, job: Job) -> Asset:
    """Cut-out [H, W, 4], straight alpha -> mesh and field, y up.

    The front of the object, not the photographed side, looks to +z: the model was shown its training objects from all sides.

    Raises:
        ForegroundError: no foreground. InputError: NaN. MeshError: an empty shape. CheckpointError: bad weights.
    """
    picture = photo_on_white(rgba, options.foreground_ratio)
    with job.stage("load_model"):
        job.tell("loading clip-vit-l14", 0.0)
        clip = load_clip_grid(job.locate("clip-vit-l14"), job.device)
    condition = clip([picture])
    del clip
    latent = sample_latent(condition, "shap-e-image", "image", options, job)
    job.report["shap_e"] = {"weights": "shap-e-image", "latent_deviation": round(float(latent.std()), 4)}
    return decode(latent, options, job)
