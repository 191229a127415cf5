"""Gaussians that look like given pictures: 3D Gaussian Splatting (Kerbl et al. 2023), on any device.

A step draws one view (or a few), compares it by L1 and 1 - SSIM, and moves the Gaussians by Adam. In the first half of the
run Gaussians with a steep gradient on the screen are cloned or split, and faint or huge ones pruned. The published run has
30,000 steps; :class:`DensitySchedule` shortens its schedule in proportion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Cameras
from ..errors import BozzettoError, InputError
from ..gaussians import Gaussians
from ..raster import rasterize
from ..training.losses import ssim
from .density import (
    MAX_GRADIENT,
    MIN_OPACITY,
    DensificationStats,
    densify_and_prune,
    reset_opacity,
    screen_gradient,
    screen_radii,
)
from .parameters import GaussianParameters, Rates
from .start import LEAST_POINTS, gaussians_on_points, random_points, with_sh_degree

POINTS = 5000  # of a random start
NEAR = 0.01  # the near plane, in extents of the scene
SSIM_WEIGHT = 0.2
Start = str | Gaussians | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DensitySchedule:
    """When Gaussians are cloned, split and pruned. Steps count from 0.

    Attributes:
        start, stop, every: from, to and between which steps. reset_every: steps between resets of the opacity, 0 for none.
        max_gradient: mean gradient on the screen (normalised device coordinates) from which one is cloned or split.
        max_radius: pixels on the screen beyond which one is pruned after the first reset; 0 for no such rule.
    """

    start: int = 500
    stop: int = 15_000
    every: int = 100
    reset_every: int = 3000
    max_gradient: float = MAX_GRADIENT
    max_radius: float = 20.0

    @classmethod
    def for_steps(cls, steps: int) -> DensitySchedule:
        """The published schedule for 30,000 steps; in shorter runs it begins and ends earlier.

        Between two passes lie 40 steps at least: what was cloned must find its opacity before it is looked at again.
        """
        return cls(start=min(500, steps // 10), stop=steps // 2, every=max(40, min(100, steps // 30)))

    def due(self, step: int) -> bool:
        """Whether ``step`` clones, splits and prunes."""
        return self.start < step < self.stop and step % self.every == 0

    def resets(self, step: int) -> bool:
        """Whether ``step`` resets the opacities."""
        return self.reset_every > 0 and 0 < step < self.stop and step % self.reset_every == 0


def fit_gaussians(
    images: Sequence[Tensor] | Tensor,
    cameras: Cameras,
    *,
    init: Start = "random",
    steps: int = 3000,
    sh_degree: int = 0,
    densify: DensitySchedule | bool = True,
    points: int = POINTS,
    max_gaussians: int = 500_000,
    batch: int = 1,
    ssim_weight: float = SSIM_WEIGHT,
    background: Sequence[float] | None = None,
    rates: Rates | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[str, float], None] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Gaussians:
    """Optimise Gaussians until they look like the pictures.

    Args:
        images: V pictures [H, W, 3], or [H, W, 4] with straight alpha, float in 0..1; sizes may differ. Where they have
            alpha, every step puts another background behind them, so that what is see-through stays empty.
        cameras: (V,), in any world at any scale.
        init: "random" (in what the cameras see; inside all masks where there are any), (points [N, 3], colours [N, 3]), or
            Gaussians to go on from.
        steps: optimisation steps; 3,000 fit a small object, 30,000 is the published run.
        sh_degree: 0..3, of view-dependent colour; one degree more every tenth of the run.
        densify: True for :meth:`DensitySchedule.for_steps`, False to keep the number of Gaussians, or a schedule.
        points: of a random start.
        max_gaussians: no more are made than this.
        batch: views a step.
        ssim_weight: share of 1 - SSIM in the loss; the rest is L1.
        background: rgb behind pictures with alpha, and behind the Gaussians; None is random for pictures with alpha, and
            black for others.
        rates: Adam's; None is :meth:`Rates.for_steps`.
        seed: of everything random. On a CPU the same arguments give the same result.
        device: where to optimise.
        progress: called with (what is being done, share done).
        on_step: called with (step, loss) after every step; the loss is a 0-d tensor on the device.

    Returns:
        Unbatched Gaussians on ``device``, without gradients.

    Raises:
        InputError: pictures, cameras or arguments do not fit. ForegroundError: nothing is inside all masks.
        BozzettoError: no Gaussians are left.
    """
    pictures = _checked(images, cameras, steps, sh_degree, batch, ssim_weight)
    if points < LEAST_POINTS or max_gaussians < 1 or not 0 <= seed < 2**63:
        raise InputError(
            f"points must be at least {LEAST_POINTS}, max_gaussians at least 1, seed 0 to 2^63 - 1; "
            f"got {points}, {max_gaussians}, {seed}"
        )
    device = torch.device(device)
    tell = progress or (lambda stage, share: None)
    cameras = Cameras(cameras.camera_to_world.float(), cameras.intrinsics.float())
    tell("placing the first splats", 0.0)
    start = _start(init, pictures, cameras, points, sh_degree, seed)
    schedule = DensitySchedule.for_steps(steps) if densify is True else densify or None
    extent = scene_extent(cameras, start)
    rates = rates or Rates.for_steps(steps)
    parameters = GaussianParameters.from_gaussians(start.to(device), extent, rates)
    run = _Run(
        [p.to(device) for p in pictures], cameras.to(device), background, ssim_weight, batch, NEAR * extent, seed
    )
    stats = DensificationStats.zeros(len(parameters), device)
    for step in range(steps):
        if step % 10 == 0:
            tell(f"fitting, {len(parameters):,} splats", step / steps)
        parameters.set_learning_rate(step)
        active = min(sh_degree, 10 * step // max(steps, 1))
        watched = schedule is not None and step < schedule.stop
        loss = run.step(parameters, active, step, stats if watched else None)
        parameters.clean_gradients()
        if schedule is not None and schedule.due(step):
            late = schedule.reset_every > 0 and step > schedule.reset_every
            densify_and_prune(
                parameters,
                stats,
                max_gradient=schedule.max_gradient,
                min_opacity=MIN_OPACITY,
                size_rule=late,
                max_radius=schedule.max_radius if late and schedule.max_radius > 0 else None,
                max_count=max_gaussians,
                generator=run.random,
            )
            if len(parameters) == 0:
                raise BozzettoError(
                    f"no splats are left after step {step}: all became transparent; check that cameras and pictures belong "
                    "together, or start from points"
                )
        parameters.step()
        if schedule is not None and schedule.resets(step):
            reset_opacity(parameters)
        if on_step is not None:
            on_step(step, loss)
    tell("fitted", 1.0)
    return parameters.gaussians().detach()


class _Run:
    """What stays the same during a run, and one step of it."""

    def __init__(
        self,
        pictures: list[Tensor],
        cameras: Cameras,
        background: Sequence[float] | None,
        ssim_weight: float,
        batch: int,
        near: float,
        seed: int,
    ) -> None:
        self.pictures, self.cameras, self.ssim_weight, self.batch, self.near = (
            pictures,
            cameras,
            ssim_weight,
            batch,
            near,
        )
        self.random = torch.Generator().manual_seed(seed)
        alike = len({p.shape[:2] for p in pictures}) == 1
        self.batch = batch if alike else 1
        self.masked = any(p.shape[-1] == 4 for p in pictures)
        self.background = None if background is None else torch.tensor(background, dtype=torch.float32)
        self.waiting: list[int] = []

    def draw(self) -> list[int]:
        """The views of the next step: all of them in random order before any comes again."""
        chosen = []
        for _ in range(min(self.batch, len(self.pictures))):
            if not self.waiting:
                self.waiting = torch.randperm(len(self.pictures), generator=self.random).tolist()
            chosen.append(self.waiting.pop())
        return chosen

    def behind(self) -> Tensor:
        """The background of a step, [3]."""
        if self.background is not None:
            return self.background
        return torch.rand(3, generator=self.random) if self.masked else torch.zeros(3)

    def step(self, parameters: GaussianParameters, degree: int, step: int, stats: DensificationStats | None) -> Tensor:
        """Loss and gradients of one step; ``stats`` are added to where there are some."""
        views = self.draw()
        cameras = self.cameras[views]
        background = self.behind().to(self.pictures[0].device)
        goal = torch.stack([_over(self.pictures[i], background) for i in views])
        size = tuple(goal.shape[1:3])
        gaussians = parameters.gaussians()
        gaussians.sh = gaussians.sh[:, : (degree + 1) ** 2]
        # Every view gets its own copy of the Gaussians, so that gradients can be told apart by view.
        copies = Gaussians(*(t.expand(len(views), *t.shape) for t in gaussians.tensors()))
        copies.means.retain_grad()
        drawn = rasterize(copies, cameras[:, None], size, background, near=self.near).rgb[:, 0]
        loss = (1 - self.ssim_weight) * F.l1_loss(drawn, goal)
        if self.ssim_weight:
            loss = loss + self.ssim_weight * (1 - ssim(drawn, goal).mean())
        loss.backward()
        if stats is not None:
            with torch.no_grad():
                still = gaussians.detach()
                radii = screen_radii(still, cameras, size, self.near).amax(0)
                gradient = torch.nan_to_num(copies.means.grad, nan=0.0, posinf=0.0, neginf=0.0)
                # The loss is a mean over views; the published threshold is for one.
                stats.add(screen_gradient(still.means, gradient, cameras).sum(0) * len(views), radii > 0, radii)
        return loss.detach()


def scene_extent(cameras: Cameras, gaussians: Gaussians) -> float:
    """The length that learning rates and sizes are measured by: 1.1 times the farthest camera's distance from their centre.

    Where the cameras stand together, the distance to the Gaussians counts.
    """
    positions = cameras.positions
    spread = 1.1 * float((positions - positions.mean(0)).norm(dim=-1).max())
    apart = float((gaussians.means.cpu().median(dim=0).values - positions.mean(0)).norm())
    return max(spread, 0.5 * apart, 1e-6)


def _over(picture: Tensor, background: Tensor) -> Tensor:
    if picture.shape[-1] == 3:
        return picture
    return picture[..., :3] * picture[..., 3:] + background * (1 - picture[..., 3:])


def _start(init: Start, pictures: list[Tensor], cameras: Cameras, points: int, sh_degree: int, seed: int) -> Gaussians:
    if isinstance(init, Gaussians):
        if init.batch_shape or len(init) == 0:
            raise InputError("give the Gaussians of one object to start from, at least one of them")
        return with_sh_degree(init.detach().to("cpu", torch.float32), sh_degree)
    if isinstance(init, tuple):
        return gaussians_on_points(*init, sh_degree=sh_degree)
    if init != "random":
        raise InputError(f"init must be 'random', (points, colours) or Gaussians, got {init!r}")
    return gaussians_on_points(*random_points(pictures, cameras, points, seed), sh_degree=sh_degree)


def _checked(
    images: Sequence[Tensor] | Tensor, cameras: Cameras, steps: int, sh_degree: int, batch: int, ssim_weight: float
) -> list[Tensor]:
    pictures = [torch.as_tensor(image).float().cpu() for image in images]
    if not pictures:
        raise InputError("there are no pictures to fit; give at least one")
    if cameras.batch_shape != (len(pictures),):
        raise InputError(
            f"{len(pictures)} pictures need {len(pictures)} cameras, got a batch of {tuple(cameras.batch_shape)}"
        )
    if not all(bool(torch.isfinite(t).all()) for t in (cameras.camera_to_world, cameras.intrinsics)):
        raise InputError("the cameras hold NaN or infinity; leave out the views that have no pose")
    for i, picture in enumerate(pictures):
        if picture.ndim != 3 or picture.shape[-1] not in (3, 4) or min(picture.shape[:2]) < 8:
            raise InputError(f"picture {i} must be [H, W, 3 or 4] of at least 8 x 8 pixels, got {tuple(picture.shape)}")
        if not bool(torch.isfinite(picture).all()) or float(picture.max()) > 1.5 or float(picture.min()) < -0.5:
            raise InputError(f"picture {i} must hold numbers from 0 to 1 (divide bytes by 255)")
    if steps < 1 or batch < 1 or sh_degree not in (0, 1, 2, 3) or not 0 <= ssim_weight <= 1:
        raise InputError(
            "steps and batch must be at least 1, sh_degree 0 to 3, ssim_weight 0 to 1; "
            f"got {steps}, {batch}, {sh_degree}, {ssim_weight}"
        )
    return pictures
