"""The reconstructed object as a function: ask it for density and colour, or for pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...camera.cameras import Size
from ...camera.conventions import world_to_triposr
from .config import RendererConfig
from .network import NeRFMLP
from .render import render_rays
from .triplane import query_triplane

VISIBLE = 2.0  # density of which a few samples in a row are seen
FAINT = 0.01  # density that changes a pixel by less than 1 % even along the whole way through the cube
GRID = 128


class TriposrField:
    """A triplane and its decoder.

    ``density`` and ``colour`` take points in TripoSR's own frame (z up, the photo's camera on +x, the cube [-r, r]³);
    ``render`` and ``framing`` work in the world of :mod:`bozzetto.camera.cameras` (y up, the photo's side facing +z).
    """

    def __init__(self, triplane: Tensor, decoder: NeRFMLP, config: RendererConfig, chunk: int = 1 << 17) -> None:
        """
        Args:
            triplane: [3, C, H, W]; its device is where everything is computed.
            chunk: the most points in one call of the decoder.
        """
        self.triplane, self.decoder, self.config, self.chunk = triplane.float(), decoder, config, chunk
        self._grid: tuple[Tensor, Tensor] | None = None

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
        return query_triplane(self.decoder, self.triplane, points, self.config, self.chunk)["density_act"][..., 0]

    def colour(self, points: Tensor) -> Tensor:
        """sRGB colours [N, 3] in 0..1 of ``points`` [N, 3]."""
        return query_triplane(self.decoder, self.triplane, points, self.config, self.chunk)["color"]

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

        def query(points: Tensor) -> tuple[Tensor, Tensor]:
            answer = query_triplane(self.decoder, self.triplane, points, self.config, self.chunk)
            return answer["density_act"][..., 0], answer["color"]

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
                query, *rays, self.config.radius, samples, back, chunk, self._occupied if fast else None
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
            planes = []
            for x in axis.split(8):
                points = torch.stack(torch.meshgrid(x, axis, axis, indexing="ij"), dim=-1)  # [8, n + 1, n + 1, 3]
                planes.append(self.density(points.reshape(-1, 3)).reshape(points.shape[:3]))
            corners = torch.cat(planes)[None, None]
            # A window of four corners covers the cell and its neighbours.
            high = F.max_pool3d(corners, 4, 1, padding=1)[0, 0]
            low = -F.max_pool3d(-corners, 4, 1, padding=1)[0, 0]
            self._grid = high.contiguous(), low.contiguous()
        return self._grid
