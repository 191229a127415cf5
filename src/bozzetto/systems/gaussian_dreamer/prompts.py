"""What the diffusion model is told about each view: "..., front view" and so on, and the perp-neg mixture of them.

Directions are indices into :data:`DIRECTIONS`. Azimuth 0 is the front; angles are in degrees.
Perp-neg: Armandpour et al. 2023, "Re-imagine the Negative Prompt Algorithm".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DIRECTIONS = ("side", "front", "back", "overhead")
SIDE, FRONT, BACK, OVERHEAD = range(4)


def view_prompts(prompt: str) -> list[str]:
    """The prompt once per direction, in the order of :data:`DIRECTIONS`."""
    return [prompt + suffix(direction) for direction in DIRECTIONS]


def suffix(direction: str) -> str:
    """What is appended to the prompt for a direction."""
    return f", {direction} view"


def direction_index(elevation: Tensor, azimuth: Tensor) -> Tensor:
    """Which of :data:`DIRECTIONS` each view is, int64, same shape: front within 45 degrees of azimuth 0, back beyond 135,
    overhead above elevation 60 (which wins), else side.
    """
    azimuth = wrap(azimuth)
    index = torch.full(azimuth.shape, SIDE, dtype=torch.long, device=azimuth.device)
    index[azimuth.abs() < 45] = FRONT
    index[(azimuth > 135) | (azimuth < -135)] = BACK
    index[elevation > 60] = OVERHEAD
    return index


def wrap(azimuth: Tensor) -> Tensor:
    """Degrees in [-180, 180)."""
    return (azimuth + 180) % 360 - 180


@dataclass
class ViewTexts:
    """Embedded prompts: ``text`` and ``negative``, each [4, L, C] in the order of :data:`DIRECTIONS`."""

    text: Tensor
    negative: Tensor

    def select(self, elevation: Tensor, azimuth: Tensor) -> tuple[Tensor, Tensor]:
        """(text, negative) for B views, each [B, L, C]."""
        index = direction_index(elevation, azimuth).to(self.text.device, non_blocking=True)
        return self.text[index], self.negative[index]

    def perp_neg(self, elevation: Tensor, azimuth: Tensor) -> PerpNegTexts:
        """The perp-neg mixture for B views: between two directions the positive text is interpolated, and the texts of the
        directions that the view is not are negatives with weights that fade with the angle.
        """
        azimuth = wrap(azimuth.double())
        near_front = azimuth.abs() < 90
        overhead = elevation > 60
        r = torch.where(near_front, 1 - azimuth.abs() / 90, 2 - azimuth.abs() / 90)
        weights = torch.where(
            near_front[:, None],
            torch.stack([-_fade(r, 4, 0.5, -2.426), -_fade(1 - r, 4, 0.5, -2.426)], dim=-1),
            torch.stack([-_fade(r, 1, 0.5, -0.606), -_fade(r, 1, 0.5, 0.967)], dim=-1),
        )  # [B, 2]
        weights = weights.masked_fill(overhead[:, None], 0.0)
        first = torch.where(near_front, FRONT, SIDE)
        second = torch.where(near_front, SIDE, BACK)
        first, second = (torch.where(overhead, OVERHEAD, x).to(self.text.device) for x in (first, second))
        share = r.to(self.text)[:, None, None]
        positive = share * self.text[first] + (1 - share) * self.text[second]
        negatives = torch.stack([torch.where(near_front, FRONT, SIDE), torch.where(near_front, SIDE, FRONT)], dim=-1)
        return PerpNegTexts(
            positive,
            self.text[negatives.to(self.text.device)],
            weights.to(self.text),
            self.negative[direction_index(elevation, azimuth).to(self.text.device)],
        )


def _fade(r: Tensor, a: float, b: float, c: float) -> Tensor:
    return a * torch.exp(-b * r) + c


@dataclass
class PerpNegTexts:
    """positive [B, L, C]; negatives [B, 2, L, C] with weights [B, 2] (<= 0); unconditional [B, L, C]."""

    positive: Tensor
    negatives: Tensor
    weights: Tensor
    unconditional: Tensor


def fit_prompt(prompt: str, count_tokens: Callable[[str], int], limit: int) -> str:
    """The longest beginning of the prompt that leaves room for a view suffix within the text encoder's ``limit`` tokens.

    Without this a long prompt would lose its ", front view", and every side would be drawn as the front.
    """
    longest = max(DIRECTIONS, key=lambda d: count_tokens(suffix(d)))

    def fits(length: int) -> bool:
        return count_tokens(prompt[:length].rstrip() + suffix(longest)) <= limit

    if fits(len(prompt)):
        return prompt
    low, high = 0, len(prompt)
    for _ in range(math.ceil(math.log2(len(prompt) + 1)) + 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    cut = prompt[:low]
    return (cut[: cut.rfind(" ")] if " " in cut else cut).rstrip(" ,")
