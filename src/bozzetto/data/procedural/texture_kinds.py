"""What a texture is: a painter (rng, size, colours [4, 3]) -> picture [n, n, 3] in 0..1 that tiles without seams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Painter = Callable[[np.random.Generator, int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Texture:
    """A painter, its weight among random textures, and the most repeats that still look right."""

    paint: Painter
    weight: float
    repeats: int


#: All textures by name, in the order in which their modules define them.
TEXTURES: dict[str, Texture] = {}


def texture(weight: float, repeats: int = 4) -> Callable[[Painter], Painter]:
    """Registers a painter under its function name."""

    def register(paint: Painter) -> Painter:
        TEXTURES[paint.__name__] = Texture(paint, weight, repeats)
        return paint

    return register


def flat(size: int, color: np.ndarray) -> np.ndarray:
    """A picture of one colour [3]: [n, n, 3] float32."""
    return np.broadcast_to(color.astype(np.float32), (size, size, 3)).copy()


def whole(rng: np.random.Generator, low: int, high: int) -> int:
    """A random whole number from ``low`` to ``high``, both included."""
    return int(rng.integers(low, high + 1))
