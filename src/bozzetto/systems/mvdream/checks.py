"""Which prompts, pictures and numbers are accepted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ...errors import InputError

MAX_PROMPT_CHARACTERS = 10_000


def check_prompts(prompts: str | Iterable[str]) -> list[str]:
    """``prompts`` as a list of strings of at most 10,000 characters each; raises :class:`InputError` for anything else."""
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"a prompt must be text, got {type(text).__name__}")
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise InputError(
                f"a prompt has {len(text):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are accepted "
                "(the text encoder reads about 75 words)"
            )
    return texts


def check_pictures(
    images: Tensor | Sequence[Tensor] | None, takes_image: bool, count: int | None = None
) -> list[Tensor]:
    """Pictures as a list of [H, W, 3] floats; ``count``: how many there must be.

    Raises:
        InputError: pictures where none are taken, none where they are needed, or values that are no picture.
    """
    if images is None:
        if takes_image:
            raise InputError("this model needs a picture for every prompt (images=...)")
        return []
    if not takes_image:
        raise InputError("this model takes text only; use ImageDream for pictures")
    if isinstance(images, Tensor) and images.dim() == 3:
        images = images[None]
    pictures = list(images)
    for picture in pictures:
        if not isinstance(picture, Tensor) or picture.dim() != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            what = tuple(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
            raise InputError(f"a picture must be a float tensor [H, W, 3] in 0..1, got {what}")
        if not picture.is_floating_point() or not bool(torch.isfinite(picture).all()):
            raise InputError("a picture must hold finite floats in 0..1")
    if count is not None and len(pictures) != count:
        raise InputError(f"{count} prompts but {len(pictures)} pictures; give one picture per prompt")
    return pictures


def check_numbers(guidance: float, elevation: float, candidates: int, batch: int) -> None:
    """Raises :class:`InputError` for numbers that make no sense."""
    if not math.isfinite(guidance):
        raise InputError(f"guidance must be a finite number, got {guidance}")
    if not abs(elevation) <= 90:
        raise InputError(f"elevation must lie within -90..90 degrees, got {elevation}")
    for name, value in (("candidates", candidates), ("batch", batch)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_size(size: int, multiple: int) -> None:
    """Raises :class:`InputError` unless ``size`` (pixels) is a positive multiple of ``multiple``."""
    if not isinstance(size, int) or size < multiple or size % multiple:
        raise InputError(f"size must be a multiple of {multiple} pixels, got {size!r}")
