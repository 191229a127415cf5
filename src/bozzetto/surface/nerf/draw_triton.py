"""A mesh coloured by the field, drawn with shapes that depend on the picture's size alone and without waiting for the device."""

from __future__ import annotations

import contextlib
import os

import torch
from torch import Tensor

from .edges import Topology, project
from .edges_triton import antialias
from .field import NerfField
from .surface_triton import surface_points

NEAR = 0.05


class Visibility:
    """The nearest triangle at every pixel centre, as :func:`bozzetto.data.render.visibility.visible_faces` finds it.

    Args:
        faces: [F, 3], kept. size: side of the square pictures in pixels.
    """

    def __init__(self, faces: Tensor, size: int) -> None:
        device = faces.device
        self.faces, self.size = faces.to(torch.int32).contiguous(), size
        # No texture: the passes read only that the material has no holes.
        self.uvs = torch.zeros(1, 3, 2, device=device)
        self.material = torch.zeros(len(faces), dtype=torch.int32, device=device)
        self.levels = torch.zeros(1, 16, dtype=torch.int64, device=device)
        self.sizes = torch.zeros(1, 4, dtype=torch.int32, device=device)

    @torch.no_grad()
    def find(self, vertices: Tensor, camera: Tensor) -> Tensor:
        """[H, W] int32, -1 for none. ``vertices``: [N, 3]. ``camera``: [20], a row of ``camera_table``."""
        from ...data.render.triton import CHUNK, QUEUE_CAPACITY, QUEUE_PROGRAMS
        from ...data.render.triton_visibility import queue_kernel, visibility_kernel

        device, size = vertices.device, self.size
        keys = torch.zeros(size, size, dtype=torch.int64, device=device)
        queue = torch.empty(QUEUE_CAPACITY, 3, dtype=torch.int32, device=device)
        length = torch.zeros(1, dtype=torch.int32, device=device)
        shared = (
            vertices.contiguous(), self.faces, self.uvs, self.material, self.material, self.levels, self.sizes, self.sizes,
            camera, keys, queue, length, 1, 0, 1, QUEUE_CAPACITY, size, size, NEAR, False, CHUNK,
        )  # fmt: skip
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            visibility_kernel[(len(self.faces), 1)](*shared, BLOCK=64, num_warps=1, num_stages=1)
            programs = 4 if os.environ.get("TRITON_INTERPRET") == "1" else QUEUE_PROGRAMS
            queue_kernel[(programs,)](*shared, BLOCK=512, num_warps=4, num_stages=1)
        return (keys & 0xFFFFFFFF).to(torch.int32) - 1


class Canvas:
    """Draws one mesh again and again while its vertices move.

    Args:
        topology: of the mesh. size: side of the pictures in pixels.
    """

    def __init__(self, topology: Topology, size: int) -> None:
        self.visibility = Visibility(topology.faces, size)
        neighbour = topology.neighbour.to(torch.int32).contiguous()
        self.topology = Topology(self.visibility.faces, neighbour, topology.pairs)

    def draw(self, vertices: Tensor, field: NerfField, camera: Tensor) -> Tensor:
        """Premultiplied rgb and alpha [H, W, 4], as :func:`.refine.draw` makes them; ``camera``: [20]."""
        screen, inverse = project(vertices, camera)
        with torch.no_grad():
            face = self.visibility.find(vertices, camera)
            points, depth = surface_points(vertices, self.topology.faces, face, screen.contiguous(), inverse)
            alpha = (face >= 0).float().reshape(-1, 1)
        picture = torch.cat([field.colour(points) * alpha, alpha], dim=1).reshape(*face.shape, 4)
        return antialias(picture, depth, screen, inverse, self.topology)
