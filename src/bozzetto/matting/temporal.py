"""Mattes that agree over time: follow one object through a clip, estimate how it moves, average what it shows again.

All pictures here are small (a side of at most ``WORKING_SIDE`` pixels): outlines are drawn sharply afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .refine import box_mean

WORKING_SIDE = 640
REACH = 2  # frames before and after that take part in smoothing
NOISE = 0.06  # colours that differ by less (root mean square, 0..1) may be the same thing seen again
GRAIN = 0.02  # largest mean squared difference of colours that can be put down to the camera's noise
TAKEN = 0.3  # a piece belongs to the object when this share of it lies where the object was


def follow(mask: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """The pieces of ``mask`` [H, W] (bool) that are the object of the frame before: [H, W] bool.

    Without a frame before, the largest piece. Else the piece that overlaps the object's old place best, with all other
    pieces that mostly lie on it; if none touches it (a fast object), the piece nearest to it that is of similar size.
    Nothing (all False) if there is no such piece either.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))
    if count == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(float)
    if before is None or not before.any():
        return labels == 1 + sizes.argmax()
    shared = np.bincount(labels[before], minlength=count + 1)[1:].astype(float)
    if shared.max() > 0:
        best = (shared / (sizes + before.sum() - shared)).argmax()
        chosen = np.flatnonzero((shared / sizes > TAKEN) | (np.arange(count) == best)) + 1
        return np.isin(labels, chosen)
    centres = np.array(ndimage.center_of_mass(mask, labels, range(1, count + 1)))
    distance = np.linalg.norm(centres - np.array(ndimage.center_of_mass(before)), axis=1)
    alike = (sizes > before.sum() / 4) & (sizes < before.sum() * 4) & (distance < 2 * np.sqrt(before.sum()))
    if not alike.any():
        return np.zeros_like(mask)
    return labels == 1 + np.where(alike, distance, np.inf).argmin()


def object_shift(first: Tensor, second: Tensor, first_mask: Tensor, second_mask: Tensor) -> tuple[int, int]:
    """Whole pixels (down, right) by which the object of ``first`` [3, H, W] moves to where it is in ``second``.

    The peak of the cross-correlation of both objects, each [3, H, W] within its soft mask [H, W], mean colour taken out.
    """
    spectra = []
    for picture, mask in ((first, first_mask), (second, second_mask)):
        weight = mask / mask.sum().clamp_min(1e-6)
        mean = (picture * weight).sum((1, 2), keepdim=True)
        seen = torch.cat([(picture - mean) * mask, 0.2 * mask[None]])  # [4, H, W]: colours, and the outline
        spectra.append(torch.fft.rfft2(seen, s=(2 * mask.shape[0], 2 * mask.shape[1])))
    correlation = torch.fft.irfft2((spectra[0].conj() * spectra[1]).sum(0))  # [2H, 2W], circular
    height, width = correlation.shape
    peak = int(correlation.argmax())
    down, right = peak // width, peak % width
    return down - height * (down >= height // 2), right - width * (right >= width // 2)


def shifted(picture: Tensor, shift: tuple[int, int]) -> Tensor:
    """``picture`` [..., H, W] moved (down, right) by whole pixels; its border repeats where nothing came in."""
    height, width = picture.shape[-2:]
    rows = (torch.arange(height, device=picture.device) - shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=picture.device) - shift[1]).clamp(0, width - 1)
    return picture[..., rows[:, None], columns]


def smoothed(
    alphas: Tensor, colours: Callable[[int], Tensor], known: list[bool], progress: Callable[[float], None]
) -> tuple[Tensor, list[float]]:
    """Soft mattes of a clip, made alike where the clip shows the same thing.

    A neighbour's matte counts in a pixel as far as the neighbour's colours there agree with this frame's: unmoved (for
    the background, and for an object that stands), or moved as the object moved between the two frames. The first pass
    takes the weighted median, which removes what only one frame claims; the second the weighted mean.

    Args:
        alphas: [T, H, W] uint8 soft mattes.
        colours: gives [3, H, W] in 0..1 of a frame.
        known: frames without a matte of their own (False) take everything from their neighbours.

    Returns:
        [T, H, W] uint8, and for every frame the share of its matte that agreeing neighbours (or itself) vouch for.
    """
    count = len(alphas)
    shifts = _shifts(alphas, colours, known)
    trust = [1.0] * count
    for step, combine in enumerate((weighted_median, weighted_mean)):
        result = torch.empty_like(alphas)
        for t in range(count):
            here = colours(t)
            values, weights = [alphas[t].float() / 255], [torch.full_like(here[0], float(known[t] or step > 0))]
            # A frame without a matte looks further: its direct neighbours may have none either.
            reach = REACH if known[t] else 2 * REACH
            for other in range(max(0, t - reach), min(count, t + reach + 1)):
                if other == t or not (known[other] or step > 0):
                    continue
                there, matte = colours(other), alphas[other].float() / 255
                best, seen = None, None
                for move in {(0, 0), (shifts[t][0] - shifts[other][0], shifts[t][1] - shifts[other][1])}:
                    difference = (shifted(there, move) - here).square().mean(0, keepdim=True)
                    difference = box_mean(difference, 2)[0]
                    # What differs in the calmest parts, too, is the camera's noise.
                    floor = float(difference[::4, ::4].quantile(0.2).clamp(max=GRAIN))
                    agreement = torch.exp(-(difference - floor).clamp_min(0) / (2 * NOISE**2))
                    moved = shifted(matte, move)
                    seen = moved if best is None else torch.where(agreement > best, moved, seen)
                    best = agreement if best is None else torch.maximum(best, agreement)
                values.append(seen)
                weights.append(best * math.exp(-0.5 * ((other - t) / REACH) ** 2))
            combined = combine(torch.stack(values), torch.stack(weights))
            if step == 0 and not known[t]:
                vouched = torch.stack(weights).amax(0) > 0.1
                trust[t] = float((combined * vouched).sum() / combined.sum().clamp_min(1e-6))
            result[t] = (combined * 255).round().to(torch.uint8)
            progress((step + (t + 1) / count) / 2)
        alphas = result
    return alphas, trust


def _shifts(alphas: Tensor, colours: Callable[[int], Tensor], known: list[bool]) -> list[tuple[int, int]]:
    """Where the object of each frame stands, relative to the first frame, by adding up its steps."""
    places, here, last = [(0, 0)], None, None
    for t in range(len(alphas)):
        step = (0, 0)
        if known[t]:
            now = (colours(t), alphas[t].float() / 255)
            if last is not None:
                step = object_shift(last[0], now[0], last[1], now[1])
            last = now
        here = (0, 0) if here is None else (here[0] + step[0], here[1] + step[1])
        places.append(here)
    return places[1:]


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """[H, W] of ``values`` and ``weights`` [K, H, W]: the value below and above which lies half of the weight."""
    order = values.argsort(dim=0)
    values, weights = values.gather(0, order), weights.gather(0, order)
    reached = weights.cumsum(0) >= 0.5 * weights.sum(0, keepdim=True)
    return values.gather(0, reached.float().argmax(0, keepdim=True))[0]


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """[H, W] of ``values`` and ``weights`` [K, H, W]."""
    return (values * weights).sum(0) / weights.sum(0).clamp_min(1e-6)


def reduced(frame: Tensor) -> Tensor:
    """A frame [H, W, 3] as [3, h, w] with a side of at most ``WORKING_SIDE`` pixels."""
    picture = frame.permute(2, 0, 1)
    scale = WORKING_SIDE / max(frame.shape[:2])
    if scale >= 1:
        return picture
    size = max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale))
    return F.interpolate(picture[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
