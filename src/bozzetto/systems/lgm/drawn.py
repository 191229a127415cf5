"""Objects of a library as one batch of lgm-mini sees them: which, in which pose, how large and in which colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.library import AssetLibrary, Mixture, Pose
from ...data.library.mixture import draw_poses
from .zoom import draw_fill


@dataclass
class Drawn:
    """Objects of a library in one batch: poses, and per object its fill and whether its photo alone is looked at
    (:func:`draw_fill`), and the tint [n, 3] of its picture-less materials."""

    poses: list[Pose]
    fill: Tensor
    photo: Tensor
    tints: Tensor

    @classmethod
    def none(cls) -> Drawn:
        """No objects."""
        return cls([], torch.zeros(0), torch.zeros(0, dtype=torch.bool), torch.zeros(0, 3))

    def pin_memory(self) -> Drawn:
        """All tensors in page-locked memory (needs CUDA)."""
        return Drawn(self.poses, *(x.pin_memory() for x in (self.fill, self.photo, self.tints)))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Drawn:
        """All tensors on ``device``."""
        tensors = (self.fill, self.photo, self.tints)
        return Drawn(self.poses, *(x.to(device, non_blocking=non_blocking) for x in tensors))


def draw_from(
    mixture: Mixture,
    library: AssetLibrary,
    known: Tensor,
    key: Sequence[int],
    generator: torch.Generator,
    overfit: int = 0,
    recolour: float = 0.0,
) -> Drawn:
    """Draw an object for each row of ``known`` [n, 4] (which slots have a picture).

    Args:
        library: of ``mixture.numbers``.
        key: (seed, step, part).
        overfit: take the same few objects in turn, at rest, in their own colours; 0: any.
        recolour: share of objects that get a tint.
    """
    count = len(known)
    if overfit:
        few = mixture.draw(overfit, [0, 0, 0])
        numbers = [few[i % overfit] for i in range(key[1] * count, (key[1] + 1) * count)]
        poses, recolour = [Pose(n) for n in numbers], 0.0
    else:
        numbers = mixture.draw(count, key)
        poses = draw_poses(library, numbers, key)
    fill, photo = draw_fill(known, generator)
    chosen = torch.rand(count, 1, generator=generator) < recolour
    tints = torch.where(chosen, 0.25 + 0.75 * torch.rand(count, 3, generator=generator), torch.ones(()))
    return Drawn(poses, fill, photo, tints)
