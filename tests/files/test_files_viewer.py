"""The viewer page: what is inside it."""

import base64
import io
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from bozzetto.errors import MeshError, OutputError
from bozzetto.files.viewer import pack_splats, write_viewer
from bozzetto.gaussians import Gaussians
from bozzetto.mesh import Mesh


def ball(count=1500, degree=0, seed=0):
    """A coloured ball with a red dot in front (+z), a green one on top (+y) and a blue one at its right (+x)."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=generator) * 0.2
    sh[:, 0] = direction * 1.2
    body = Gaussians(
        direction * 0.4,
        torch.rand(count, 3, generator=generator) * 0.03 + 0.003,
        torch.randn(count, 4, generator=generator),
        torch.rand(count, generator=generator) * 0.95 + 0.04,
        sh,
    )
    dots = Gaussians.from_rgb(
        torch.eye(3).flip(0) * 0.46,
        torch.full((3, 3), 0.05),
        torch.tensor([[2.0, 0, 0, 0]] * 3),
        torch.ones(3),
        torch.eye(3),
    )
    return Gaussians.cat([body, dots])


class Elements(HTMLParser):
    """Text by element id, every attribute that could load something, and the title."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.loads, self.current, self.scripts = {}, [], None, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [v for k, v in attributes if k in ("src", "href", "data", "action")]
        self.current = found.get("id", tag)
        self.scripts += tag == "script"

    def handle_data(self, data):
        if data.strip():
            self.texts[self.current] = self.texts.get(self.current, "") + data


def read_page(path):
    return Elements(path.read_text(encoding="utf-8"))


def unpack(meta, data):
    """An independent reading of the page's arrays."""
    stream, n = io.BytesIO(data), meta["count"]

    def take(dtype, *shape):
        return np.frombuffer(stream.read(math.prod(shape) * np.dtype(dtype).itemsize), dtype).reshape(shape)

    means = take("<f4", n, 3)
    quats = take("<i2", n, 4) / 32767
    low, high = meta["logScale"]
    scales = np.exp(low + (high - low) * take("<u2", n, 3) / 65535)
    low, high = meta["colour"]
    colours = low + (high - low) * take("<u2", n, 3) / 65535
    opacities = take("<u2", n) / 65535
    terms = (meta["degree"] + 1) ** 2 - 1
    bands = np.array([meta["shScale"][b] for b in (0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2)[:terms]])
    rest = take("i1", n, terms, 3) / 127 * bands[:, None]
    assert not stream.read()
    return means, quats, scales, colours, opacities, rest


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_packing_keeps_the_splats(degree):
    gaussians = ball(200, degree)
    meta, data = pack_splats(gaussians)
    assert len(data) == 203 * (34 + 3 * ((degree + 1) ** 2 - 1))
    means, quats, scales, colours, opacities, rest = unpack(meta, data)
    assert np.array_equal(means, gaussians.means)
    unit = torch.nn.functional.normalize(gaussians.quats, dim=-1).numpy()
    assert np.abs(quats - unit).max() < 2e-5
    assert np.abs(scales / gaussians.scales.numpy() - 1).max() < 1e-4
    assert np.abs(colours - gaussians.rgb.numpy()).max() < 3e-5
    assert np.abs(opacities - gaussians.opacities.numpy()).max() < 1e-5
    assert np.abs(rest - gaussians.sh[:, 1:].numpy()).max(initial=0) < 0.006


def test_page_is_self_contained_and_small(tmp_path):
    write_viewer(tmp_path / "viewer.html", ball(65536 - 3))
    assert (tmp_path / "viewer.html").stat().st_size < 3.1e6
    page = read_page(tmp_path / "viewer.html")
    assert page.loads == []
    assert json.loads(page.texts["scene"])["splats"]["count"] == 65536
    assert len(base64.b64decode(page.texts["splat-data"])) == 65536 * 34
    text = (tmp_path / "viewer.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "Apache License" in text
    assert "import " not in page.texts["script"]
    assert "fetch(" not in page.texts["script"]


@pytest.mark.parametrize(
    "title",
    ["</title><script>alert(1)</script>", "a & b \"c\" 'd'", "{{splats}} {{nothing}}", "Tasse à café 🫖", "\udce4.png"],
)
def test_titles_are_escaped(tmp_path, title):
    write_viewer(tmp_path / "viewer.html", ball(5), title=title)
    page = read_page(tmp_path / "viewer.html")
    assert page.texts["title"] == page.texts["h1"] == title.replace("\udce4", "?")
    assert page.scripts == 4


def test_undrawn_splats_are_left_out(tmp_path):
    gaussians = ball(100)
    gaussians.opacities[:10] = 0.003
    gaussians.means[10, 0] = math.nan
    gaussians.scales[11, 0] = math.inf
    write_viewer(tmp_path / "viewer.html", gaussians)
    assert json.loads(read_page(tmp_path / "viewer.html").texts["scene"])["splats"]["count"] == 103 - 12


def test_first_view_ignores_strays_and_follows_up(tmp_path):
    gaussians = ball(2000)
    gaussians.means[:3] = 500.0
    moved = Gaussians(gaussians.means * 40 + 7, *gaussians.tensors()[1:])
    write_viewer(tmp_path / "viewer.html", moved, up=(0, 0, 1))
    scene = json.loads(read_page(tmp_path / "viewer.html").texts["scene"])
    assert np.allclose(scene["centre"], 7, atol=0.8)
    assert 15 < scene["radius"] < 18
    assert scene["frame"] == [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # Blender: up is z, the front looks to -y
    for up in ((0, 1, 0), (0, -2, 0), (1, 2, 3)):
        write_viewer(tmp_path / "viewer.html", moved, up=up)
        frame = np.array(json.loads(read_page(tmp_path / "viewer.html").texts["scene"])["frame"])
        assert np.allclose(frame @ frame.T, np.eye(3), atol=1e-9)
        assert math.isclose(np.linalg.det(frame), 1)
        assert np.allclose(frame[1], np.array(up) / np.linalg.norm(up))


def test_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.html"):
        write_viewer(tmp_path / "viewer.txt", ball(5))
    batched = Gaussians(*(t[None] for t in ball(5).tensors()))
    with pytest.raises(ValueError, match=r"gaussians\[0\]"):
        write_viewer(tmp_path / "viewer.html", batched)
    with pytest.raises(ValueError, match="up"):
        write_viewer(tmp_path / "viewer.html", ball(5), up=(0, 0, 0))
    assert list(tmp_path.iterdir()) == []


def test_mesh_alone_frames_the_mesh(tmp_path):
    corners = torch.tensor([[2.0, -0.5, 0], [3, -0.5, 0], [3, 0.5, 0]])
    write_viewer(tmp_path / "viewer.html", None, mesh=Mesh(corners, torch.tensor([[0, 1, 2]])))
    scene = json.loads(read_page(tmp_path / "viewer.html").texts["scene"])
    assert np.allclose(scene["centre"], (2.5, 0, 0)) and scene["splats"]["count"] == 0
    with pytest.raises(ValueError, match="Gaussians or a mesh"):
        write_viewer(tmp_path / "viewer.html", None)


def test_mesh_pages_need_a_mesh(tmp_path):
    with pytest.raises(ValueError, match="Gaussians or a mesh"):
        write_viewer(tmp_path / "viewer.html")
    with pytest.raises(MeshError, match="no triangles"):
        write_viewer(tmp_path / "viewer.html", mesh=Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)))
