"""Words for an object: its main colours by name, and phrases made of what its collection says about it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .checks import areas
from .source_object import SourceObject

# sRGB examples of each colour word; the word whose example is nearest in CIE Lab names a colour.
COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((10, 10, 10), (35, 35, 35)),
    "dark grey": ((72, 72, 72),),
    "grey": ((128, 128, 128), (155, 155, 155)),
    "light grey": ((196, 196, 196),),
    "white": ((240, 240, 240), (255, 255, 255)),
    "red": ((200, 25, 25), (230, 60, 50), (150, 20, 25)),
    "dark red": ((95, 15, 18),),
    "orange": ((240, 130, 30), (220, 100, 20)),
    "brown": ((110, 65, 30), (90, 60, 45), (140, 90, 50)),
    "dark brown": ((55, 38, 28),),
    "beige": ((215, 195, 160), (190, 165, 130)),
    "yellow": ((245, 215, 50), (215, 180, 40)),
    "green": ((60, 160, 60), (90, 190, 80), (40, 120, 45)),
    "dark green": ((25, 65, 30), (50, 70, 35)),
    "olive": ((115, 115, 50), (140, 140, 80)),
    "turquoise": ((50, 180, 175), (40, 130, 130)),
    "light blue": ((140, 190, 230),),
    "blue": ((40, 90, 200), (30, 50, 150), (70, 120, 190)),
    "dark blue": ((20, 25, 75), (40, 55, 85)),
    "purple": ((120, 50, 150), (90, 40, 110)),
    "pink": ((240, 150, 180), (225, 90, 140)),
}
_WORDS = [word for word, examples in COLOURS.items() for _ in examples]


def lab(rgb: NDArray) -> NDArray[np.float64]:
    """sRGB 0..255 [..., 3] -> CIE Lab (D65)."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


_EXAMPLES = lab([example for examples in COLOURS.values() for example in examples])


def name_colours(rgb: NDArray) -> list[str]:
    """The colour word of each row of ``rgb`` [N, 3] (0..255)."""
    distance = np.linalg.norm(lab(rgb)[:, None] - _EXAMPLES, axis=-1)
    return [_WORDS[i] for i in distance.argmin(1)]


def main_colours(obj: SourceObject, most: int = 3, share: float = 0.15) -> tuple[str, ...]:
    """Names of colours that cover at least ``share`` of the surface, the largest first (at least one)."""
    totals: dict[str, float] = {}
    for part in obj.parts:
        if not len(part.faces):
            continue
        area = areas(part.vertices, part.faces)
        tint = np.asarray(part.colour, np.float64)
        if part.texture is not None and part.uvs is not None:
            picture = obj.textures[part.texture]
            uv = part.uvs[part.faces].mean(1) % 1.0  # [F, 2]
            inner = part.uvs[part.faces] * 0.6 + uv[:, None] * 0.4
            uv = np.concatenate([inner.reshape(-1, 2), uv])  # three points towards the corners, one in the middle
            row = (uv[:, 1] % 1 * picture.shape[0]).astype(int).clip(0, picture.shape[0] - 1)
            column = (uv[:, 0] % 1 * picture.shape[1]).astype(int).clip(0, picture.shape[1] - 1)
            texels = picture[row, column]
            area = np.concatenate([np.repeat(area / 4, 3), area / 4])
            if part.alpha != "opaque":
                area = area * (texels[:, 3] > 127)
            rgb = texels[:, :3] * tint
        elif part.colours is not None:
            rgb = part.colours[part.faces].mean(1) * tint
        else:
            rgb, area = 255 * tint[None], area.sum(keepdims=True)
        for word, weight in zip(name_colours(rgb), area):
            totals[word] = totals.get(word, 0.0) + float(weight)
    total = sum(totals.values())
    ranked = sorted(totals, key=lambda w: -totals[w])
    chosen = [w for w in ranked if totals[w] >= share * max(total, 1e-30)][:most]
    return tuple(chosen or ranked[:1])


def _article(phrase: str) -> str:
    return ("an " if phrase[:1].lower() in "aeiou" else "a ") + phrase


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[_\-/]+", " ", text)).strip()


def captions(name: str, colour_words: Sequence[str] = (), category: str = "", tags: Sequence[str] = ()) -> list[str]:
    """Phrases for one object, the plainest first; the same for the same words.

    >>> captions("chair", ["red"], "Kitchen")
    ['a chair', 'a red chair', 'a 3D model of a red chair', 'a red chair, kitchen']
    """
    name = _plain(name)
    if not name:
        return []
    if name.isupper() and len(name) > 4:
        name = name.lower()
    colour = " and ".join(colour_words[:2])
    coloured = f"{colour} {name}" if colour else name
    out = [_article(name), _article(coloured), f"a 3D model of {_article(coloured)}"]
    if category and category.lower() not in name.lower():
        out.append(f"{_article(coloured)}, {_plain(category).lower()}")
    words = [_plain(t).lower() for t in tags if t and t.lower() not in name.lower()][:4]
    if words:
        out.append(f"{_article(name)} ({', '.join(words)})")
    return list(dict.fromkeys(out))


def motion_captions(name: str, clip: str, colour_words: Sequence[str] = ()) -> list[str]:
    """Phrases for an object that moves: "a red horse, walk"."""
    verb = _plain(re.sub(r"([a-z])([A-Z])", r"\1 \2", clip)).lower()
    return [f"{phrase}, {verb}" for phrase in captions(name, colour_words)]


def draw_caption(
    rng: random.Random, name: str, colour_words: Sequence[str] = (), category: str = "", tags: Sequence[str] = ()
) -> str:
    """One phrase, with each tag, the category and the colours left out now and then; "" where there is no name."""
    kept = [t for t in tags if rng.random() < 0.5]
    rng.shuffle(kept)
    phrases = captions(name, colour_words if rng.random() < 0.7 else (), category if rng.random() < 0.5 else "", kept)
    return rng.choice(phrases) if phrases else ""
