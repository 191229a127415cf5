"""Random colours and colour schemes in sRGB, shaped like the colours of real things rather than uniform."""

from __future__ import annotations

import numpy as np

# family: (hue low, hue high, saturation low, saturation high, value low, value high), weight
FAMILIES = {
    "saturated": ((0.0, 1.0, 0.6, 1.0, 0.65, 1.0), 0.2),
    "muted": ((0.0, 1.0, 0.12, 0.5, 0.5, 0.95), 0.16),
    "dark": ((0.0, 1.0, 0.0, 0.6, 0.06, 0.3), 0.07),
    "light": ((0.0, 1.0, 0.0, 0.15, 0.82, 0.98), 0.14),
    "grey": ((0.0, 1.0, 0.0, 0.1, 0.3, 0.95), 0.1),
    "earth": ((0.02, 0.13, 0.3, 0.8, 0.35, 0.95), 0.14),
    "plant": ((0.18, 0.42, 0.35, 0.9, 0.3, 0.9), 0.06),
    "pastel": ((0.0, 1.0, 0.15, 0.4, 0.8, 1.0), 0.07),
    "warm": ((0.96, 1.13, 0.5, 0.95, 0.55, 1.0), 0.06),
    "metal": ((0.08, 0.62, 0.0, 0.18, 0.5, 0.95), 0.0),
    "fur": ((0.03, 0.11, 0.15, 0.7, 0.28, 1.0), 0.0),
    "glass": ((0.5, 0.65, 0.1, 0.6, 0.1, 0.6), 0.0),
}
_NAMES = list(FAMILIES)
_WEIGHTS = np.array([w for _, w in FAMILIES.values()])


def hsv_to_rgb(hsv: np.ndarray) -> np.ndarray:
    """[..., 3] hue (any real, turns), saturation and value in 0..1 -> sRGB [..., 3]."""
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    shifted = (hue[..., None] * 6 + np.array([0.0, 4.0, 2.0])) % 6
    ramp = np.clip(np.abs(shifted - 3) - 1, 0, 1)
    return value[..., None] * (1 - saturation[..., None] * (1 - ramp))


def random_hsv(rng: np.random.Generator, family: str | None = None) -> np.ndarray:
    """One colour [3] = hue, saturation, value of a family, or of a random one."""
    if family is None:
        family = _NAMES[int(rng.choice(len(_NAMES), p=_WEIGHTS / _WEIGHTS.sum()))]
    h0, h1, s0, s1, v0, v1 = FAMILIES[family][0]
    return np.array([rng.uniform(h0, h1) % 1.0, rng.uniform(s0, s1), rng.uniform(v0, v1)])


def random_color(rng: np.random.Generator, family: str | None = None) -> np.ndarray:
    """One sRGB colour [3]."""
    return hsv_to_rgb(random_hsv(rng, family))


def scheme(rng: np.random.Generator, family: str | None = None, count: int = 4) -> np.ndarray:
    """``count`` sRGB colours that go together, [count, 3]; the first is the main one.

    The others are shades of it, neighbours in hue, its complement, white or black, or unrelated colours.
    """
    main = random_hsv(rng, family)
    kind = rng.choice(5, p=[0.32, 0.22, 0.14, 0.16, 0.16])
    colors = [main]
    for _ in range(count - 1):
        # The other's value keeps a distance from the main one's, mostly towards the side with more room.
        away = rng.uniform(0.08, 0.5) * (-1 if rng.random() < main[2] else 1)
        if kind == 0:
            other = main + np.array([rng.normal(0, 0.015), rng.normal(0, 0.12), away])
        elif kind == 1:
            other = main + np.array([rng.normal(0, 0.07), rng.normal(0, 0.2), away])
        elif kind == 2:
            other = main + np.array([0.5 + rng.normal(0, 0.05), rng.normal(0, 0.2), rng.normal(0, 0.2)])
        elif kind == 3:
            other = random_hsv(rng, "light" if rng.random() < 0.5 + 0.3 * (main[2] < 0.5) else "dark")
        else:
            other = random_hsv(rng)
        colors.append(np.array([other[0] % 1.0, np.clip(other[1], 0, 1), np.clip(other[2], 0.03, 1)]))
    return hsv_to_rgb(np.stack(colors))
