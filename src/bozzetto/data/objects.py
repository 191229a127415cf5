"""One training object: triangles with materials, as plain NumPy arrays, independent of where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class TexturedObject:
    """Triangles with textures, object centred at the origin, y up, front towards +z, bounding sphere of radius <= 0.6.

    (Radius 0.6 keeps an object inside the picture of LGM's camera: distance 1.5, fov 49.1 degrees.)

    Attributes:
        vertices: [V, 3] float32.
        faces: [F, 3] int32, counter-clockwise seen from outside (thin parts may be seen from both sides).
        uvs: [F, 3, 2] float32 per corner, (0, 0) is the texture's top-left corner, values outside 0..1 repeat.
        normals: [F, 3, 3] float32 unit shading normals per corner.
        material: [F] int32, index into ``textures`` and ``base_colors``.
        textures: per material, [h, w, 4] uint8 RGBA (sRGB, straight alpha); h and w powers of two.
        base_colors: [M, 3] float32, multiplies the texture.
        name, source, split: where it came from, for reports.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    textures: list[np.ndarray]
    base_colors: np.ndarray
    name: str = ""
    source: str = "procedural"
    split: str = "train"
    info: dict = field(default_factory=dict)
