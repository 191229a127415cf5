"""A box with a picture on its front (four coloured quadrants, a letter in each) and plain sides, and what to check of
pictures of it; for the tests of how other people's programs draw our meshes. Made by hand, and by ``gaussians_to_mesh``.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bozzetto.gaussians import Gaussians, matrix_to_quaternion
from bozzetto.mesh import Mesh
from bozzetto.surface import gaussians_to_mesh

CENTRE, HALF = np.array([0.1, 0.2, -0.05]), np.array([0.5, 0.5, 0.3])
SIDE = 128  # texels of the front's picture
DISTANCE, TANGENT = 3.3, 0.25  # camera to CENTRE; of half the field of view: the front is 2/3 of the picture wide
FOV = float(np.degrees(2 * np.arctan(TANGENT)))
PLAIN = (255, 255, 255)

QUADRANTS = {"F": (220, 40, 40), "G": (40, 170, 60), "J": (40, 70, 210), "L": (235, 200, 40)}  # row by row
LETTERS = {
    "F": ("#####", "#", "#", "####", "#", "#", "#"),
    "G": (" ####", "#", "#", "#  ##", "#   #", "#   #", " ####"),
    "J": ("    #", "    #", "    #", "    #", "#   #", "#   #", " ###"),
    "L": ("#", "#", "#", "#", "#", "#", "#####"),
}

# Outward direction, right and up of every side as one sees it from outside (world axes), and its colour.
SIDES = {
    "front": ((0, 0, 1), (1, 0, 0), (0, 1, 0), None),
    "right": ((1, 0, 0), (0, 0, -1), (0, 1, 0), (40, 200, 200)),
    "back": ((0, 0, -1), (-1, 0, 0), (0, 1, 0), (200, 50, 180)),
    "left": ((-1, 0, 0), (0, 0, 1), (0, 1, 0), (240, 130, 30)),
    "top": ((0, 1, 0), (1, 0, 0), (0, 0, -1), (200, 200, 200)),
    "bottom": ((0, -1, 0), (1, 0, 0), (0, 0, 1), (60, 60, 60)),
}


def front_picture() -> np.ndarray:
    """[SIDE, SIDE, 3] uint8: red F and green G above blue J and yellow L."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    half, cell = SIDE // 2, 6
    for i, (name, colour) in enumerate(QUADRANTS.items()):
        y, x = divmod(i, 2)
        quadrant = picture[y * half : (y + 1) * half, x * half : (x + 1) * half]
        quadrant[:] = colour
        for row, line in enumerate(LETTERS[name]):
            for column, mark in enumerate(line):
                if mark == "#":
                    top, left = 11 + row * cell, 17 + column * cell
                    quadrant[top : top + cell, left : left + cell] = 10
    return picture


def box() -> Mesh:
    """24 vertices, 12 triangles; the texture holds the front's picture at its left and the plain colours at its right."""
    texture = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    texture[:, :SIDE] = front_picture()
    vertices, uvs, normals, faces = [], [], [], []
    for i, (direction, right, up, colour) in enumerate(SIDES.values()):
        low, high = np.array([0.0, 0.0]), np.array([0.5, 1.0])  # u, v of the top-left and the bottom-right corner
        if colour is not None:
            y, x = divmod(i, 3)
            texture[y * 64 : (y + 1) * 64, SIDE + x * 42 : SIDE + (x + 1) * 42] = colour
            low = np.array([SIDE + x * 42 + 12, y * 64 + 20]) / (2 * SIDE, SIDE)
            high = np.array([SIDE + x * 42 + 30, y * 64 + 44]) / (2 * SIDE, SIDE)
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            vertices.append(CENTRE + HALF * (np.array(direction) + a * np.array(right) + b * np.array(up)))
            uvs.append(np.where([a > 0, b < 0], high, low))
            normals.append(direction)
        faces += [[4 * i, 4 * i + 1, 4 * i + 2], [4 * i, 4 * i + 2, 4 * i + 3]]
    tensors = (torch.tensor(np.array(x), dtype=torch.float32) for x in (vertices, normals, uvs))
    vertices, normals, uvs = tensors
    return Mesh(vertices, torch.tensor(faces), normals, uvs, texture=torch.from_numpy(texture).float() / 255)


def coloured_box() -> Mesh:
    """The same box with vertex colours in place of the texture; its front is red."""
    mesh = box()
    colors = torch.tensor([side[3] or QUADRANTS["F"] for side in SIDES.values()]).repeat_interleave(4, 0) / 255
    return Mesh(mesh.vertices, mesh.faces, mesh.normals, colors=colors)


def splat_box(count: int = 96) -> Gaussians:
    """``count``² flat splats on every side of the same box, in the same colours."""
    picture = front_picture()
    steps = (np.arange(count) + 0.5) / count * 2 - 1
    sigma = 0.6 * 2 * HALF.max() / count
    means, scales, frames, colours = [], [], [], []
    for direction, right, up, colour in SIDES.values():
        direction, right, up = (np.array(x, float) for x in (direction, right, up))
        b, a = (x.reshape(-1, 1) for x in np.meshgrid(steps, steps, indexing="ij"))
        means.append(CENTRE + (HALF - 1.2 * sigma) * (direction + a * right + b * up))  # outline: half opaque
        scales += [[sigma, sigma, 0.2 * sigma]] * count**2
        frames += [np.stack([right, up, direction], 1)] * count**2
        if colour is None:
            at = [((1 - b[:, 0]) / 2 * SIDE).astype(int), ((1 + a[:, 0]) / 2 * SIDE).astype(int)]
            colours.append(picture[at[0], at[1]])
        else:
            colours.append(np.tile(np.uint8(colour), (count**2, 1)))
    quaternions = matrix_to_quaternion(torch.tensor(np.array(frames), dtype=torch.float32))
    floats = (torch.tensor(np.concatenate(x), dtype=torch.float32) for x in (means, [scales], colours))
    means, scales, colours = floats
    return Gaussians.from_rgb(means, scales, quaternions, torch.full((len(means),), 0.97), colours / 255)


def meshed_box() -> Mesh:
    """What the converter makes of the splats."""
    return gaussians_to_mesh(splat_box(), resolution=64, texture_size=512, max_faces=4000)


# ---- what a picture must show ----


def check_front(picture: np.ndarray, tolerance: float, letters: float) -> None:
    """The front's picture is upright and not mirrored; ``tolerance`` of a quadrant's colour, ``letters`` on average."""
    size = len(picture)
    edge = (size / 6, size / 6, size * 5 / 6, size * 5 / 6)
    seen = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX, box=edge)).astype(float)
    expected = front_picture().astype(float)
    ways = {
        f"{flip}{90 * k}": np.rot90(expected[:, ::-1] if flip else expected, k)
        for flip in ("", "mirrored ")
        for k in range(4)
    }
    errors = {name: float(np.abs(seen - way).mean()) for name, way in ways.items()}
    assert min(errors, key=errors.get) == "0", errors
    assert errors["0"] <= letters, errors
    # The letters alone, without the colours, tell the same.
    dark = np.stack([way.max(-1) < 100 for way in ways.values()])
    drawn = seen.max(-1) < 100
    overlap = [(drawn & d).sum() / (drawn | d).sum() for d in dark]
    assert overlap[0] > 0.5 and overlap[0] > 1.5 * max(overlap[1:]), overlap
    half = SIDE // 2
    for i, colour in enumerate(QUADRANTS.values()):
        y, x = divmod(i, 2)
        got = np.median(seen[y * half + 3 : (y + 1) * half - 3, x * half + 3 : (x + 1) * half - 3], axis=(0, 1))
        assert np.abs(got - colour).max() <= tolerance, (i, got, colour)


def check_views(pictures: dict[str, np.ndarray], tolerance: float, letters: float) -> None:
    """Every side has its colour in the view that shows it; around the box there is the plain background."""
    assert pictures.keys() == SIDES.keys()
    for name, picture in pictures.items():
        size = len(picture)
        assert np.abs(picture[: size // 10].astype(int) - PLAIN).max() <= 1
        colour = SIDES[name][3]
        if colour is None:
            check_front(picture, tolerance, letters)
        else:
            centre = picture[size // 2 - 8 : size // 2 + 8, size // 2 - 8 : size // 2 + 8]
            got = np.median(centre, axis=(0, 1))
            assert np.abs(got - colour).max() <= tolerance, (name, got, colour)


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def keep(pictures: dict[str, np.ndarray], name: str) -> None:
    """All views in one row, for looking at: NAME.png in the folder BOZZETTO_KEEP_PICTURES, if that is set."""
    if folder := os.environ.get("BOZZETTO_KEEP_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(pictures.values()), axis=1)).save(Path(folder) / f"{name}.png")
