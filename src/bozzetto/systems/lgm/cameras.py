"""Random camera sets for training lgm-mini: which views a step gives the network, and which it asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...camera import Cameras, look_at
from .inputs import camera_above, canonical_frame, query_cameras, to_frame

SLOTS = 4  # views the network sees: known pictures first, then the sides it has to imagine; one from above may follow


@dataclass
class ViewSet:
    """Cameras of one training batch.

    Attributes:
        slots: (B, S), in the network's frame (the first camera has no rotation); S is 4, or 5 with one from above.
        known: [B, S], 1 for slots with a picture.
        novel: (B, n), in the network's frame.
        frame: [B, 4, 4], world -> network frame (a rotation about the origin).
        target: [B, 3], the world point that the network's frame has as its origin.
        placed: [B] bool, whether the object is to have a bounding sphere of ``zoom.PLACED_RADIUS`` around that origin.
    """

    slots: Cameras
    known: Tensor
    novel: Cameras
    frame: Tensor
    target: Tensor
    placed: Tensor

    def pin_memory(self) -> ViewSet:
        """All tensors in page-locked memory (needs CUDA)."""
        return self._map(lambda x: x.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ViewSet:
        """All tensors on ``device``; ``non_blocking`` helps after :meth:`pin_memory`."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def rows(self, which: slice) -> ViewSet:
        """The cameras of some of the objects."""
        return self._map(lambda x: x[which])

    def _map(self, change: Callable[[Tensor], Tensor]) -> ViewSet:
        def of(x: Cameras | Tensor) -> Cameras | Tensor:
            return change(x) if isinstance(x, Tensor) else Cameras(change(x.camera_to_world), change(x.intrinsics))

        return ViewSet(**{k: of(v) for k, v in vars(self).items()})

    def world(self) -> Cameras:
        """Slots and novel cameras in the object's world, (B, S + n), for rendering the object."""
        both = to_frame(Cameras.cat([self.slots, self.novel], dim=1), self.frame.transpose(-1, -2))
        pose = both.camera_to_world.clone()
        pose[..., :3, 3] += self.target[:, None]
        return Cameras(pose, both.intrinsics)


def _orbit(azimuth: Tensor, elevation: Tensor, radius: Tensor) -> Tensor:
    """Poses [..., 4, 4] from degrees, y up."""
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    position = torch.stack([e.cos() * a.sin(), e.sin(), e.cos() * a.cos()], dim=-1) * radius[..., None]
    return look_at(position)


KNOWN = (0.25, 0.05, 0.05, 0.65)  # shares of objects of which one, two, three and four views are known
RING = 0.75  # share of input sets that are rings of four
STUDIO = 0.7  # share of objects seen by LGM's camera
FRONT = 0.3  # share of single photos that are taken from the front
PLACED = 0.0  # share of objects whose size does not depend on what their pictures show
FRONT_SPREAD = 20.0  # degrees: standard deviation of their azimuth


def sample_views(
    batch: int,
    novel: int,
    generator: torch.Generator,
    *,
    known: Sequence[float] = KNOWN,
    ring: float = RING,
    studio: float = STUDIO,
    front: float = FRONT,
    placed: float = PLACED,
    slots: int = SLOTS,
    object_radius: float = 0.6,
    target_jitter: float = 0.04,
) -> ViewSet:
    """Draw the cameras of a batch (on the CPU).

    A share ``studio`` of the objects is seen by LGM's camera (fov 49.1 degrees, distance 1.5), the others with 20 to 60 degrees
    from a distance that fits the object. A share ``ring`` of the input sets are rings of four (neighbours 90 degrees apart, one
    elevation; half of them exactly so and level), the others stand anywhere from 30 degrees below to 60 above, at unequal
    distances. One to four views are known, with the probabilities ``known``. Of the objects with one, a share ``front`` is seen
    from about its front (+z), as people take photos. A share ``placed`` is placed as data sets of models are: a bounding
    sphere of one size (``zoom.PLACED_RADIUS``) around the point that all cameras look at, so that a small outline means a
    deep object. ``slots`` is 4, or 5 with :func:`~.inputs.camera_above` behind them.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    fov = torch.where(torch.rand(batch, generator=generator) < studio, torch.tensor(49.1), uniform(20, 60, batch))
    fitting = object_radius / torch.sin(torch.deg2rad(fov) / 2) * uniform(1.0, 1.15, batch)
    radius = torch.where(fov == 49.1, torch.tensor(1.5), fitting)
    drawn = torch.rand(batch, 1, generator=generator)
    ringed, exact = drawn < ring, drawn < 0.5 * ring

    first = uniform(0, 360, batch, 1)
    ring_azimuth = first + torch.arange(SLOTS) * 90 + uniform(-5, 5, batch, SLOTS) * ~exact
    order = torch.stack([torch.randperm(SLOTS - 1, generator=generator) + 1 for _ in range(batch)])
    order = torch.cat([torch.zeros(batch, 1, dtype=torch.long), order], dim=1)
    ring_azimuth = ring_azimuth.gather(1, order)  # so that two known views may also be opposite
    ring_elevation = (uniform(-10, 30, batch, 1) + uniform(-5, 5, batch, SLOTS)) * ~exact
    azimuth = torch.where(ringed, ring_azimuth, uniform(0, 360, batch, SLOTS))
    elevation = torch.where(ringed, ring_elevation, uniform(-30, 60, batch, SLOTS))
    # One view for a photo and four for a turntable are the common cases.
    count = (
        torch.multinomial(torch.tensor(known, dtype=torch.float32), batch, replacement=True, generator=generator) + 1
    )
    frontal = (count == 1) & (torch.rand(batch, generator=generator) < front)
    turn = FRONT_SPREAD * torch.randn(batch, generator=generator) - azimuth[:, 0]
    azimuth = azimuth + (turn * frontal)[:, None]
    distance = radius[:, None] * torch.where(ringed, torch.ones(batch, SLOTS), uniform(0.95, 1.25, batch, SLOTS))

    inputs = Cameras.from_fov(_orbit(azimuth, elevation, distance), fov[:, None].expand(batch, SLOTS))
    frame = canonical_frame(inputs)
    inputs = to_frame(inputs, frame)
    given = (torch.arange(SLOTS) < count[:, None]).float()
    pose, intrinsics = inputs.camera_to_world.clone(), inputs.intrinsics.clone()
    for k in range(1, SLOTS):
        rows = count == k
        if bool(rows.any()):
            asked = query_cameras(inputs[rows][:, :k], SLOTS - k)
            pose[rows, k:], intrinsics[rows, k:] = asked.camera_to_world, asked.intrinsics
    seen = Cameras(pose, intrinsics)
    if slots > SLOTS:
        seen = Cameras.cat([seen, camera_above(seen)], dim=1)
        given = torch.cat([given, torch.zeros(batch, 1)], dim=1)

    novel_azimuth = (uniform(0, 1, batch, novel) + torch.arange(novel)) * (360 / max(novel, 1)) + uniform(
        0, 360, batch, 1
    )
    sine = uniform(math.sin(math.radians(-30)), math.sin(math.radians(75)), batch, novel)
    novel_elevation = torch.rad2deg(torch.asin(sine))
    asked = Cameras.from_fov(
        _orbit(novel_azimuth, novel_elevation, radius[:, None].expand(batch, novel)), fov[:, None].expand(batch, novel)
    )
    target = uniform(-target_jitter, target_jitter, batch, 3)
    # Without a share nothing is drawn, so that runs from before it go on with the same numbers.
    centred = torch.rand(batch, generator=generator) < placed if placed else torch.zeros(batch, dtype=torch.bool)
    target = target * ~centred[:, None]
    return ViewSet(seen, given, to_frame(asked, frame), frame, target, centred)
