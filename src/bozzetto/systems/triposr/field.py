"""The reconstructed object as a function: ask it for density and colour, or for pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...camera.cameras import Size
from ...camera.conventions import world_to_triposr
from ...nn.backend import use_kernels
from .config import RendererConfig
from .network import NeRFMLP
from .planes import GridPlanes, grid_density, project_planes
from .render import render_rays
from .triplane import query_triplane

if TYPE_CHECKING:
    from .triton_decoder import DecoderKernels

VISIBLE = 2.0  # density of which a few samples in a row are seen
FAINT = 0.01  # density that changes a pixel by less than 1 % even along the whole way through the cube
GRID = 128
CPU_CHUNK = 1 << 16  # points; larger chunks fall out of a CPU's caches


class TriposrField:
    """A triplane and its decoder.

    ``density`` and ``colour`` take points in TripoSR's own frame (z up, the photo's camera on +x, the cube [-r, r]³);
    ``render`` and ``framing`` work in the world of :mod:`bozzetto.camera.cameras` (y up, the photo's side facing +z).
    """

    def __init__(self, triplane: Tensor, decoder: NeRFMLP, config: RendererConfig, chunk: int = 1 << 17) -> None:
        """
        Args:
            triplane: [3, C, H, W]; its device is where everything is computed.
            chunk: the most points in one call of the decoder in plain PyTorch; the kernels need no memory for them.
        """
        self.triplane, self.decoder, self.config, self.chunk = triplane.float(), decoder, config, chunk
        self._grid: tuple[Tensor, Tensor] | None = None
        self._plain = False  # set when the kernels' range was too small

    @property
    def device(self) -> torch.device:
        """Where the field is computed."""
        return self.triplane.device

    @property
    def bounds(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """The cube that holds the object, in TripoSR's frame."""
        r = self.config.radius
        return (-r, -r, -r), (r, r, r)

    def density(self, points: Tensor) -> Tensor:
        """Densities [N] of ``points`` [N, 3]."""
        return self._query(points)[0]

    def colour(self, points: Tensor) -> Tensor:
        """sRGB colours [N, 3] in 0..1 of ``points`` [N, 3]."""
        return self._query(points)[1]

    @torch.no_grad()
    def grid(self, axes: tuple[Tensor, Tensor, Tensor]) -> Callable[[int, int], Tensor]:
        """The density on a regular grid: a function (first, stop) -> [stop - first, Y, Z] for samples first <= x < stop.

        Much faster than :meth:`density`, and the same but for rounding; memory is a few planes of 4 F bytes a sample (F = 64
        hidden neurons) beside the slab itself.

        Args:
            axes: the samples' coordinates (x [X], y [Y], z [Z]) in TripoSR's frame.
        """
        if self._projected is None:
            return lambda first, stop: self._grid_by_points(axes, first, stop)
        planes = GridPlanes(self.decoder, self._projected, axes, self.config)

        @torch.no_grad()
        def slab(first: int, stop: int) -> Tensor:
            if self._kernels is not None:
                values = self._kernels.grid(planes, first, stop)
                if self._in_range(values):
                    return values
            chunk = self.chunk if self.device.type != "cpu" else min(self.chunk, CPU_CHUNK)
            return grid_density(planes, first, stop, chunk)

        return slab

    @cached_property
    def _projected(self) -> Tensor | None:
        """The planes behind the decoder's first layer, for decoders that have one."""
        if not isinstance(self.decoder, NeRFMLP):
            return None
        with torch.no_grad():
            return project_planes(self.decoder, self.triplane, self.config.feature_reduction)

    @cached_property
    def _fused(self) -> DecoderKernels | None:
        if not use_kernels(self.triplane) or self._projected is None:
            return None
        from .triton_decoder import DecoderKernels

        return DecoderKernels(self.decoder, self._projected, self.config) if DecoderKernels.take(self.decoder) else None

    @property
    def _kernels(self) -> DecoderKernels | None:
        """The decoder's kernels, where they can be used."""
        return None if self._plain else self._fused

    def _in_range(self, values: Tensor) -> bool:
        """Whether kernels' results are numbers; when they are not, plain PyTorch takes over from here on."""
        self._plain = bool(torch.isnan(values).any())
        return not self._plain

    def _query(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities [N] and colours [N, 3] of ``points`` [N, 3]."""
        learning = torch.is_grad_enabled() and (points.requires_grad or self.triplane.requires_grad)
        if self._kernels is not None and not learning:
            values = self._kernels.points(points)
            if self._in_range(values):
                return values[:, 0], values[:, 1:]
        answer = query_triplane(self.decoder, self.triplane, points, self.config, self.chunk)
        return answer["density_act"][..., 0], answer["color"]

    def _grid_by_points(self, axes: tuple[Tensor, Tensor, Tensor], first: int, stop: int) -> Tensor:
        """:meth:`grid` for decoders of any kind."""
        x, y, z = (axis.to(self.device) for axis in axes)
        planes = []
        for i in range(first, stop):
            points = torch.stack(torch.meshgrid(x[i : i + 1], y, z, indexing="ij"), dim=-1)  # [1, Y, Z, 3]
            planes.append(self.density(points.reshape(-1, 3)).reshape(points.shape[:3]))
        return torch.cat(planes)

    @torch.no_grad()
    def render(
        self, cameras: Cameras, size: Size, background: Sequence[float] = (1.0, 1.0, 1.0), fast: bool = True
    ) -> Tensor:
        """Pictures [V, H, W, 3] in 0..1 of cameras (V,), on the field's device.

        Args:
            background: rgb 0..1, what is seen past and through the object.
            fast: leave out samples in empty space and behind opaque surfaces; False asks for every one. The pictures agree
                to 2 %.
        """
        cameras = cameras.to(self.device, torch.float32)
        cameras = Cameras(world_to_triposr(cameras.camera_to_world), cameras.intrinsics)
        back = torch.tensor(background, dtype=torch.float32, device=self.device)
        samples, chunk = self.config.num_samples_per_ray, max(self.chunk, self.config.num_samples_per_ray)
        if fast:
            chunk = max(chunk, 1 << 20)  # most samples are left out
        pictures = []
        for i in range(len(cameras)):
            origins, directions = cameras[i].rays(size)  # [H, W, 3]
            rays = origins.reshape(-1, 3), directions.reshape(-1, 3)
            colours = render_rays(
                self._query, *rays, self.config.radius, samples, back, chunk, self._occupied if fast else None
            )
            pictures.append(colours.reshape(directions.shape))
        return torch.stack(pictures)

    @torch.no_grad()
    def framing(self) -> tuple[tuple[float, float, float], float]:
        """Centre and radius of a sphere around all that can be seen, world units, y-up frame."""
        high, _ = self._bounds_grid()
        r, n = self.config.radius, high.shape[0]
        cells = (high > VISIBLE).nonzero()
        if len(cells) == 0:
            return (0.0, 0.0, 0.0), r * 3**0.5
        points = ((cells + 0.5) / n * 2 - 1) * r  # [M, 3]
        centre = (points.amin(dim=0) + points.amax(dim=0)) / 2
        radius = float((points - centre).norm(dim=-1).amax()) + r / n * 3**0.5
        x, y, z = centre.tolist()
        return (y, z, x), radius

    def _occupied(self, points: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """Whether samples are worth asking for, and the least opacity of a sample there."""
        high, low = self._bounds_grid()
        n = high.shape[0]
        i, j, k = ((points / self.config.radius + 1) / 2 * n).long().clamp(0, n - 1).unbind(-1)
        cell = (i * n + j) * n + k
        return high.reshape(-1)[cell] > FAINT, 1 - torch.exp(-low.reshape(-1)[cell] * step)

    def _bounds_grid(self) -> tuple[Tensor, Tensor]:
        """The highest and the lowest density in and around each of GRID³ cells, from samples at their corners."""
        if self._grid is None:
            n, r = GRID, self.config.radius
            axis = torch.linspace(-r, r, n + 1, device=self.device)
            corners = self.grid((axis, axis, axis))(0, n + 1)[None, None]
            # A window of four corners covers the cell and its neighbours.
            high = F.max_pool3d(corners, 4, 1, padding=1)[0, 0]
            low = -F.max_pool3d(-corners, 4, 1, padding=1)[0, 0]
            self._grid = high.contiguous(), low.contiguous()
        return self._grid
