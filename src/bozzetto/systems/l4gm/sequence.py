"""Loaded L4GM networks as functions: four views of one moment, then a whole clip, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...camera import Cameras
from ...errors import BozzettoError
from ...gaussians import Gaussians
from ..lgm.heads import lgm_head
from ..lgm.inputs import canonical_frame, to_frame
from ..lgm.reconstruct import published_dtype
from .azimuth import find_azimuth, render, ring_cameras, tilt
from .chunks import CHUNK, RATE, Chunk, interpolated_times, key_times, plan_chunks, published_plan, published_stride
from .inputs import RING, between, l4gm_inputs, on_white
from .network import L4GM


@dataclass
class FirstViews:
    """The network's views of the first moment.

    Attributes:
        views: [4, 3, S, S] on white; view 0 is what the video's camera should see, 1 to 3 stand beside and behind.
        azimuth: degrees by which the video's camera stands beside the front that the diffusion imagined.
        gaussians: of the first moment alone, in the diffusion's frame; unbatched.
    """

    views: Tensor
    azimuth: int
    gaussians: Gaussians


@dataclass
class Sequence4D:
    """``gaussians`` [T, N] on the CPU, ``times`` [T] in frames of the clip, ``fps`` sets a second."""

    gaussians: Gaussians
    times: list[float]
    fps: float


@torch.no_grad()
def predict(model: L4GM, rgb: Tensor, rays: Tensor | None = None, same: int = 0) -> Gaussians:
    """One forward pass: views on white [B, T, 4, 3, S, S] -> Gaussians [B, T, N], float32, in the first camera's frame.

    ``same``: how many of the last views are the same in all frames (:meth:`L4GM.forward`). Raises :class:`BozzettoError`
    where the result is not finite.
    """
    parameter = next(model.parameters())
    inputs = l4gm_inputs(rgb.to(parameter.device, torch.float32), model.config, rays)
    dtype = published_dtype(parameter.device)
    half = parameter.dtype == dtype != torch.float32  # then no autocast; the work is too large for a graph to matter
    with torch.autocast(parameter.device.type, dtype, enabled=dtype != torch.float32 and not half):
        raw = model(inputs.to(dtype) if half else inputs, same)  # [B, T, 4, 14, h, w]
    if not bool(torch.isfinite(raw).all()):
        raise BozzettoError(
            "L4GM's result holds NaN or infinity: the checkpoint is damaged, or the views are not pictures"
        )
    gaussians = lgm_head(raw.flatten(0, 1).float(), model.config.rotation)  # [B*T, N]
    return Gaussians(*(t.unflatten(0, raw.shape[:2]) for t in gaussians.tensors()))


@torch.no_grad()
def views_of_first_frame(
    recon: L4GM, views: Tensor, frame: Tensor, elevation: float = 0.0, every_degree: bool = False
) -> FirstViews:
    """Bring the diffusion's views in line with the video: reconstruct them, find the video's azimuth, render from there.

    Args:
        views: [4, 3, S, S] on white, azimuths 0, 90, 180, 270 at ``elevation``.
        frame: first frame of the video, [3, S, S] on white.
        elevation: of the video's camera, degrees above the object.
        every_degree: search as the released script does (360 renders).
    """
    config = recon.config
    cameras = Cameras.orbit(RING, elevation, config.radius, config.fov_y)[None]
    frame_of_first = canonical_frame(cameras)
    rays = to_frame(cameras, frame_of_first)[0].plucker(config.input_size) if elevation else None
    gaussians = predict(recon, views[None, None], rays)[0, 0]
    if elevation:
        gaussians = gaussians.transformed(frame_of_first[0].T)
    azimuth = find_azimuth(gaussians, frame, config, elevation, every_degree)
    ring = render(gaussians, ring_cameras(config, float(azimuth), elevation), config)
    return FirstViews(ring, azimuth, gaussians)


@torch.no_grad()
def reconstruct_clip(
    recon: L4GM,
    interp: L4GM | None,
    frames: Tensor,
    views: Tensor,
    *,
    fps: float = 15.0,
    chunk: int = CHUNK,
    elevation: float = 0.0,
    compat: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Sequence4D:
    """Gaussians for every moment of a clip.

    Args:
        recon: the reconstruction network; its device is used.
        interp: the interpolation network, for three times the frame rate; None gives one set a frame.
        frames: [T, 4, S, S] straight alpha, at the networks' input size; anywhere.
        views: [4, 3, S, S] of the first frame (:func:`views_of_first_frame`); view 0 is not used.
        chunk: frames in one forward pass; memory grows with it.
        elevation: of the video's camera, degrees above; the result stands upright.
        compat: the released script's plan and its reduction of renders (see :mod:`.chunks`).

    Memory: what one chunk needs on the network's device; the results are gathered on the CPU (3.7 MB a set at full size).
    """
    config, device = recon.config, next(recon.parameters()).device
    interpolate = interp is not None
    plan = (
        published_plan(len(frames), fps, chunk, interpolate) if compat else plan_chunks(len(frames), chunk, interpolate)
    )
    between_keys = any(c.pairs for c in plan)
    times = interpolated_times(plan) if between_keys else key_times(plan)
    sides = ring_cameras(config)[1:]
    world = tilt(0.0, elevation) if elevation else None
    result = _Gathered(len(times))
    initial = views[1:].to(device, torch.float32)
    carried = initial  # views 1 to 3, [3, 3, S, S]
    work, done = sum(len(c.frames) + (RATE + 1) * len(c.pairs) for c in plan if c.kept), 0

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        if progress is not None:
            progress(done / work)

    for c, following in zip(plan, [*plan[1:], None]):
        if not c.kept:
            continue
        front = on_white(frames[list(c.frames)].to(device, torch.float32))[:, None]  # [T, 1, 3, S, S]
        beside = carried if c.renewed else initial
        views_in = torch.cat([front, beside.expand(len(front), -1, -1, -1, -1)], dim=1)  # [T, 4, 3, S, S]
        sets = predict(recon, views_in[None], same=beside.shape[0])[0]  # [T, N]
        advance(len(front))
        if not c.pairs:
            result.add(sets[list(c.kept)], world)
        else:
            rendered = render(sets, sides, config, nearest=compat)  # [T, 3, 3, S, S]
            if c.renewed and not c.own_ends:
                rendered = torch.cat([beside[None], rendered[1:]])  # step 0 is the last chunk's last set
            ends = torch.cat([front, rendered], dim=1)
            for g in _interpolated(interp, ends, c, max(1, chunk // (RATE + 1))):
                result.add(g, world)
                advance(RATE + 1)
        if following is not None and following.renewed and following.kept:
            last = c.kept[-1]
            carried = rendered[last] if c.pairs else render(sets[last], sides, config, nearest=compat)
    rate = fps / published_stride(fps) if compat else fps
    if between_keys:
        rate *= len(times) / len(key_times(plan)) if compat else RATE
    return Sequence4D(result.gaussians(), times, rate)


def _interpolated(interp: L4GM, ends: Tensor, c: Chunk, batch: int) -> Iterator[Gaussians]:
    """Yield, pair by pair, the sets [2 to 4, N] between views ``ends`` [T, 4, 3, S, S] that are results."""
    for start in range(0, len(c.pairs), batch):
        pairs = c.pairs[start : start + batch]
        first, last = (ends[[pair[i] for pair in pairs]] for i in (0, 1))
        sets = predict(interp, between(first, last, RATE))  # [P, 4, N]
        for i in range(len(pairs)):
            new = 0 if start + i == 0 and c.whole else 1
            yield sets[i][new:]


class _Gathered:
    """Sets as they come, in one block of CPU memory."""

    def __init__(self, count: int) -> None:
        self.count, self.filled, self.tensors = count, 0, None

    def add(self, sets: Gaussians, world: Tensor | None) -> None:
        if world is not None:
            sets = sets.transformed(world)
        if self.tensors is None:
            self.tensors = [torch.empty(self.count, *t.shape[1:]) for t in sets.tensors()]
        size = len(sets.opacities)
        for target, source in zip(self.tensors, sets.tensors()):
            target[self.filled : self.filled + size] = source.cpu()
        self.filled += size

    def gaussians(self) -> Gaussians:
        if self.filled != self.count:
            raise RuntimeError(f"the plan foresaw {self.count} sets, {self.filled} were made")
        return Gaussians(*self.tensors)
