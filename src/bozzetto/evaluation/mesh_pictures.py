"""Pictures of a made mesh, unlit, for comparison with pictures of the true object."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..camera import Cameras
from ..data.assets.pictures import fit_picture
from ..data.assets.scene import colour_picture
from ..data.assets.source_object import Part
from ..data.objects import TexturedObject
from ..data.render import Lights, SceneBatch, render_objects
from ..mesh import Mesh

_TEXTURE_LIMIT = 4096


def mesh_object(mesh: Mesh) -> TexturedObject:
    """A mesh with its texture, or its vertex colours (white without either), as the triangle renderer takes it."""
    mesh = mesh if mesh.normals is not None else mesh.with_normals()
    vertices, faces = mesh.vertices.detach().float().cpu().numpy(), mesh.faces.cpu().numpy().astype(np.int32)
    uvs = np.zeros((len(faces), 3, 2), np.float32)
    picture = np.full((1, 1, 4), 255, np.uint8)
    if mesh.texture is not None:
        rgb = (mesh.texture.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        picture = fit_picture(np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]), _TEXTURE_LIMIT)
        uvs = mesh.uvs.float().cpu().numpy()[faces]
    elif mesh.colors is not None:
        colours = (mesh.colors.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        picture, uvs = colour_picture(Part(vertices, faces, colours=colours))
    return TexturedObject(
        vertices,
        faces,
        uvs,
        mesh.normals.detach().float().cpu().numpy()[faces],
        np.zeros(len(faces), np.int32),
        [picture],
        np.ones((1, 3), np.float32),
    )


def unlit(batch: int) -> Lights:
    """White light from everywhere: a texture shows as it is."""
    lights = Lights.default(batch)
    none = torch.zeros_like(lights.ambient)
    return Lights(
        torch.ones_like(none), none, none.clone(), lights.directions, torch.zeros_like(lights.colors),
        lights.specular, lights.shininess,
    )  # fmt: skip


def draw_mesh(mesh: Mesh, cameras: Cameras, size: int) -> Tensor:
    """Pictures [V, size, size, 3] of a mesh on white from cameras (V,), on the CPU."""
    drawn = render_objects(SceneBatch.pack([mesh_object(mesh)]), cameras, size, unlit(1), outputs=("rgba",)).rgba[0]
    return drawn[..., :3] * drawn[..., 3:] + 1 - drawn[..., 3:]
