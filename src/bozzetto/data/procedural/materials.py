"""The materials of one object: textures in a common colour scheme, and how each is laid on a part."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .noise import fractal
from .palette import random_color, scheme
from .solid import Solid
from .textures import TEXTURES

# style: (colour families to choose from, None for any; textures to choose from with weights, None for all)
STYLES: dict[str, tuple[tuple[str | None, ...], dict[str, float] | None]] = {
    "any": ((None,), None),
    "paint": (
        ("saturated", "saturated", "light", "light", "dark", "grey", "muted"),
        {"solid": 6, "panels": 2, "stripes": 1, "decals": 1, "rust": 1.5, "label": 1, "gradient": 0.5},
    ),
    "metal": (
        ("metal", "metal", "grey", "grey", "dark"),
        {"solid": 4, "speckle": 1, "panels": 1, "rust": 1.5, "clouds": 1},
    ),
    "wood": (("earth", "earth", "fur", "light"), {"wood": 6, "bricks": 1, "solid": 1.5, "speckle": 0.5}),
    "fabric": (
        (None,),
        {"solid": 3, "plaid": 2, "weave": 2, "stripes": 2, "dots": 1.5, "decals": 1, "checker": 1, "fur": 1},
    ),
    "fur": (
        ("fur", "fur", "fur", "fur", "grey", "grey", "dark", "light", "light"),
        {"fur": 6, "solid": 1.5, "camouflage": 1.2, "rosettes": 1, "zebra": 0.7, "patches": 0.5, "clouds": 1.5},
    ),
    "skin": (
        (None, "warm", "fur", "plant"),
        {"solid": 4, "clouds": 2, "speckle": 1, "dots": 1, "patches": 1, "zebra": 1, "gradient": 1},
    ),
    "stone": (("grey", "earth", "muted"), {"bricks": 3, "speckle": 2, "marble": 2, "patches": 2, "clouds": 2}),
    "wall": (
        ("earth", "light", "grey", "muted", "warm"),
        {"bricks": 3, "windows": 4, "solid": 2, "panels": 1, "speckle": 1},
    ),
    "pottery": (
        (None, "light", "earth"),
        {
            "solid": 5,
            "bands": 4,
            "gradient": 2,
            "stripes": 1.5,
            "marble": 1.5,
            "decals": 1.5,
            "label": 2,
            "speckle": 1,
            "dots": 1,
        },
    ),
    "package": ((None,), {"label": 5, "decals": 2, "print_page": 1.5, "solid": 2, "stripes": 1, "bands": 1}),
    "food": (
        ("warm", "warm", "earth", "plant", None),
        {"solid": 3, "clouds": 3, "gradient": 2, "speckle": 2, "dots": 1, "marble": 1},
    ),
    "leaf": (
        ("plant", "plant", "plant", "earth"),
        {"solid": 3, "gradient": 2, "clouds": 3, "speckle": 0.5, "stripes": 0.3},
    ),
    "petal": (("saturated", "pastel", "warm", "light"), {"gradient": 4, "solid": 3, "clouds": 1}),
    "bark": (("earth", "fur"), {"wood": 3, "fur": 2, "speckle": 1, "clouds": 1}),
    "dark": (("dark",), {"solid": 6, "speckle": 1, "panels": 0.5}),
    "glass": (("glass", "dark"), {"solid": 4, "gradient": 3, "clouds": 1}),
    "plain": ((None,), {"solid": 1}),
    "eye": (("dark",), {"solid": 1}),
}
# Patterns that would show a seam or an unlucky cut when a part's native parametrisation is replaced.
_NATIVE_ONLY = {"gradient", "bands", "label"}


@dataclass
class Mapping:
    """How a material's texture is laid on a part.

    kind: "fit" (once round, once along, times ``repeats``), "dense" (native, square texels), "box" (along the dominant
    axis of each face), "front" (projected along z). ``density``: repeats per unit length of "box" and "front".
    """

    kind: str
    repeats: tuple[int, int]
    density: float

    def apply(self, solid: Solid) -> np.ndarray:
        """UVs [F, 3, 2] for ``solid`` in its part's scaled but not yet turned frame."""
        if self.kind == "fit":
            return solid.uvs * np.array(self.repeats)
        if self.kind == "dense":
            return solid.uvs * np.array([self.repeats[0], self.repeats[0] * max(solid.aspect, 0.25)])
        points = solid.vertices[solid.faces] * np.array([1.0, -1.0, 1.0])  # v runs down
        if self.kind == "front":
            return points[..., :2] * self.density + 0.5
        axis = np.abs(solid.face_normals()).argmax(1)
        pairs = np.array([[2, 1], [0, 2], [0, 1]])[axis]  # [F, 2] coordinates that become u and v
        return np.take_along_axis(points, pairs[:, None].repeat(3, 1), axis=2) * self.density + 0.5


@dataclass
class Materials:
    """Growing list of one object's materials. ``rng`` is used for nothing else, so shapes do not depend on textures."""

    rng: np.random.Generator
    texture_size: int
    textures: list[np.ndarray] = field(default_factory=list)
    base_colors: list[np.ndarray] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.theme = scheme(self.rng)
        # Most man-made things keep to one scheme; the rest are motley.
        self.unity = float(self.rng.choice([0.0, 0.5, 0.85]))

    def new(self, style: str = "any") -> int:
        """A new material of a style; returns its number."""
        rng = self.rng
        families, allowed = STYLES[style]
        weights = {name: t.weight for name, t in TEXTURES.items()} if allowed is None else allowed
        names = list(weights)
        chance = np.array([weights[n] for n in names], dtype=np.float64)
        kind = names[int(rng.choice(len(names), p=chance / chance.sum()))]
        family = families[int(rng.integers(len(families)))]
        colors = scheme(rng, family)
        if family is None and rng.random() < self.unity:
            colors = np.roll(self.theme, int(rng.integers(4)), axis=0)

        size = self.texture_size
        if kind in ("label", "print_page", "panels", "windows", "bricks") and rng.random() < 0.2:
            size *= 2
        picture = TEXTURES[kind].paint(rng, size, colors)
        picture = self._weathered(picture, kind)
        rgba = np.full((size, size, 4), 255, np.uint8)
        rgba[..., :3] = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)

        most = TEXTURES[kind].repeats
        repeats = (int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1)))
        if kind in _NATIVE_ONLY:
            mapping = "fit"
        else:
            mapping = ("fit", "dense", "box", "front")[int(rng.choice(4, p=[0.2, 0.4, 0.33, 0.07]))]
        density = most**0.5 * float(np.exp(rng.uniform(np.log(0.5), np.log(1.6))))
        self.textures.append(rgba)
        tint = np.ones(3) if rng.random() < 0.85 else 0.7 + 0.3 * random_color(rng)
        self.base_colors.append(tint.astype(np.float32))
        self.mappings.append(Mapping(mapping, repeats, density))
        self.kinds.append(kind)
        return len(self.textures) - 1

    def _weathered(self, picture: np.ndarray, kind: str) -> np.ndarray:
        """Half of the pictures get large stains or fine grain, as photographed surfaces have."""
        rng = self.rng
        if rng.random() < (0.35 if kind == "solid" else 0.55):
            return picture
        slope = rng.uniform(0.3, 2.0)
        strength = rng.uniform(0.05, 0.35) if rng.random() < 0.7 else rng.uniform(0.35, 0.8)
        return picture * (1 + strength * 2 * (fractal(rng, picture.shape[0], slope) - 0.5))[..., None]
