"""Panoramas: reading them, the light they give, and scenes that stand in it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from asset_shapes import ball_object

from bozzetto.app.cli import main
from bozzetto.data.assets.convert import convert
from bozzetto.data.export import RenderOptions, render_dataset
from bozzetto.data.render import Lights
from bozzetto.data.render.environment import MEASURED, measured_environments, polynomial
from bozzetto.data.render.surroundings import (
    light_of_panorama,
    load_light,
    measure_panoramas,
    read_panorama,
    save_light,
)
from bozzetto.errors import ImageError, InputError, MissingDependencyError


def rgbe(picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] -> [H, W, 4] bytes of a Radiance picture."""
    _, exponent = np.frexp(picture.max(-1))
    out = np.zeros((*picture.shape[:2], 4), np.uint8)
    out[..., :3] = np.floor(picture / np.ldexp(1.0, exponent)[..., None] * 256)
    out[..., 3] = exponent + 128
    return out


def packed(row: np.ndarray) -> bytes:
    """One channel of a line: runs of equal bytes from three on, the rest as it is."""
    out, x = b"", 0
    while x < len(row):
        run = 1
        while x + run < len(row) and run < 127 and row[x + run] == row[x]:
            run += 1
        out += bytes([128 + run, row[x]]) if run > 2 else bytes([1, row[x]])
        x += run if run > 2 else 1
    return out


def write_hdr(path, picture: np.ndarray, runs: bool = True):
    height, width = picture.shape[:2]
    head = f"#?RADIANCE\n# made by hand\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode()
    body = b""
    for row in rgbe(picture):
        if runs:
            body += bytes([2, 2, width >> 8, width & 255]) + b"".join(packed(row[:, c]) for c in range(4))
        else:
            body += row.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + body)
    return path


def room(height: int = 32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((height, 2 * height, 3)) * 2.0 ** rng.integers(-3, 8, (height, 1, 1))).astype(np.float32)


@pytest.mark.parametrize("runs", [True, False])
def test_radiance_pictures_are_read(tmp_path, runs):
    picture = room()
    picture[3:9] = (0.25, 1.5, 3.0)  # long runs
    picture[12] = 0
    got = read_panorama(write_hdr(tmp_path / "a.hdr", np.maximum(picture, 1e-30), runs))
    assert got.shape == picture.shape and got.dtype == np.float32
    assert (np.abs(got - picture) <= picture.max(-1, keepdims=True) / 127 + 1e-20).all()
    assert np.array_equal(got[3, 0], np.array([0.25, 1.5, 3.0], np.float32)) and got[12].max() < 1e-20


def test_even_light_comes_from_everywhere():
    light = light_of_panorama(np.full((16, 32, 3), 7.0))
    assert torch.allclose(light[0], torch.ones(3)) and light[1:].abs().max() < 0.01


@pytest.mark.parametrize(
    ("column", "direction"), [(0.5, [0.0, 0, 1]), (0.0, [0.0, 0, -1]), (0.75, [-1.0, 0, 0]), (0.25, [1.0, 0, 0])]
)
def test_where_a_panorama_looks(column, direction):
    picture = np.full((64, 128, 3), 0.1, np.float32)
    for k in range(-6, 7):
        picture[26:38, (int(column * 128) + k) % 128] = 5
    light = light_of_panorama(picture)
    towards = torch.tensor(direction)
    there, back, up = ((polynomial(n) @ light).mean() for n in (towards, -towards, torch.tensor([0.0, 1, 0])))
    assert there > up > back
    sky = np.full((64, 128, 3), 0.1, np.float32)
    sky[:20] = (1, 2, 3)
    above = polynomial(torch.tensor([[0.0, 1, 0], [0.0, -1, 0]])) @ light_of_panorama(sky)
    assert above[0].min() > 2 * above[1].max() and above[0, 2] > above[0, 0]


def test_what_is_no_panorama(tmp_path):
    for bad in (np.ones((8, 8, 3)), np.ones((8, 16, 4)), np.zeros((8, 16, 3)), np.full((8, 16, 3), np.nan)):
        with pytest.raises(InputError, match="panorama"):
            light_of_panorama(bad)
    whole = write_hdr(tmp_path / "a.hdr", room()).read_bytes()
    for name, data in (
        ("cut.hdr", whole[:-50]),
        ("other.hdr", b"P6 no"),
        ("huge.hdr", b"#?RADIANCE\n\n-Y 99999 +X 99999\n"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name):
            read_panorama(tmp_path / name)
    with pytest.raises(ImageError, match="no panorama"):
        read_panorama(tmp_path / "a.png")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no panoramas"):
        measure_panoramas([tmp_path / "nothing"])


def test_openexr(tmp_path):
    picture = room(8)
    try:
        import OpenEXR
    except ImportError:
        (tmp_path / "a.exr").write_bytes(b"v/1\x01")
        with pytest.raises(MissingDependencyError, match="OpenEXR"):
            measure_panoramas([tmp_path])
        return
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": picture}).write(str(tmp_path / "a.exr"))
    assert np.array_equal(read_panorama(tmp_path / "a.exr"), picture)


def test_command_and_scenes_in_that_light(tmp_path, capsys):
    for k in range(2):
        write_hdr(tmp_path / "rooms" / f"r{k}.hdr", room(seed=k))
    write_hdr(tmp_path / "rooms" / "square.hdr", np.ones((16, 16, 3)))
    target = tmp_path / "light.json"
    command = ["data", "light", str(tmp_path / "rooms"), "-o", str(target), "--licence", "CC0-1.0"]
    assert main(command) == 0 and "left out 1" in capsys.readouterr().out
    stored = json.loads(target.read_text())
    assert list(stored["light"]) == ["rooms/r0", "rooms/r1"] and stored["licence"] == "CC0-1.0"
    light = load_light(target)
    assert torch.allclose(light[1], light_of_panorama(read_panorama(tmp_path / "rooms" / "r1.hdr")), atol=1e-4)
    assert set(stored) == set(json.loads(MEASURED.read_text()))
    red = torch.zeros(1, 9, 3)
    red[:, 0] = torch.tensor([3.0, 0.1, 0.1])
    save_light(tmp_path / "red.json", {"red": red[0]})
    convert("mine", [ball_object(name=str(i), group=str(i)) for i in range(4)], tmp_path / "data")
    pictures = {}
    for name, options in (
        ("own", RenderOptions(light="surroundings", surroundings=str(tmp_path / "red.json"))),
        ("measured", RenderOptions(light="surroundings")),
    ):
        options = RenderOptions(**{**vars(options), "size": 16, "views": 2, "limit": 1})
        render_dataset(tmp_path / "data", tmp_path / name, options)
        pictures[name] = next((tmp_path / name).rglob("rgb/000.png")).read_bytes()
    assert pictures["own"] != pictures["measured"]
    again = RenderOptions(size=16, views=2, limit=1, light="surroundings", surroundings=str(target))
    with pytest.raises(InputError, match="surroundings"):  # another light in the same folder
        render_dataset(tmp_path / "data", tmp_path / "own", again)
    with pytest.raises(InputError, match="'surroundings' only"):
        RenderOptions(surroundings=str(target))
    (tmp_path / "bad.json").write_text('{"light": {"a": [1, 2]}}')
    with pytest.raises(InputError, match="data light"):
        load_light(tmp_path / "bad.json")


def test_scenes_stand_in_the_given_surroundings():
    red = torch.zeros(1, 9, 3)
    red[:, 0] = torch.tensor([3.0, 0.3, 0.3])
    lights = Lights.random(40, torch.Generator().manual_seed(0), environment=1.0, photographed=red)
    mean = lights.environment[:, 0]
    share = (mean[:, 0] > 3 * mean[:, 1]).float().mean()
    assert 0.25 < share < 0.75 and math.isfinite(float(mean.sum()))  # half of them skies
    ours = Lights.random(40, torch.Generator().manual_seed(0), environment=1.0).environment
    assert (ours[:, 0, 0] < 3 * ours[:, 0, 1]).all() and len(measured_environments()) == 26
