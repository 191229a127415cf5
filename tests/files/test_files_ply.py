"""Splat PLY: parity with LGM's writer, the standard layout as plyfile sees it, every variant in."""

from __future__ import annotations

import numpy as np
import plyfile
import pytest
import torch

from bozzetto.files.ply import MEANS, QUATS, REQUIRED, SCALES, read_ply, write_ply
from bozzetto.gaussians import SH_C0, Gaussians


def random_gaussians(n: int = 50, degree: int = 3, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        torch.randn(n, 3, generator=g),
        torch.rand(n, 3, generator=g) * 0.1 + 1e-3,
        torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=-1),
        torch.rand(n, generator=g) * 0.98 + 0.01,
        torch.randn(n, (degree + 1) ** 2, 3, generator=g),
    )


def assert_same(a: Gaussians, b: Gaussians, atol: float = 1e-6) -> None:
    for name, x, y in zip(("means", "scales", "quats", "opacities", "sh"), a.tensors(), b.tensors()):
        torch.testing.assert_close(x, y, atol=atol, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def stored(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Every column of the 3DGS layout, computed here independently of the writer."""
    n, k = len(gaussians), gaussians.sh.shape[1]
    out = {name: gaussians.means[:, i].numpy() for i, name in enumerate(MEANS)}
    out |= {f"f_dc_{c}": gaussians.sh[:, 0, c].numpy() for c in range(3)}
    for c in range(3):
        for j in range(1, k):
            out[f"f_rest_{c * (k - 1) + j - 1}"] = gaussians.sh[:, j, c].numpy()
    opacity = gaussians.opacities.double().numpy()
    out["opacity"] = np.log(opacity / (1 - opacity))
    out |= {name: np.log(gaussians.scales[:, i].numpy()) for i, name in enumerate(SCALES)}
    out |= {name: gaussians.quats[:, i].numpy() for i, name in enumerate(QUATS)}
    assert all(v.shape == (n,) for v in out.values())
    return out


def write_with_plyfile(path, columns: dict[str, np.ndarray], types=None, others=(), **options) -> None:
    types = types or {}
    rows = np.zeros(len(next(iter(columns.values()))), [(n, types.get(n, "f4")) for n in columns])
    for name, values in columns.items():
        rows[name] = values
    vertex = plyfile.PlyElement.describe(rows, "vertex")
    plyfile.PlyData([*others, vertex] if options.pop("first", False) else [vertex, *others], **options).write(str(path))


# ---- parity with LGM ----


def lgm_gaussians(rows: np.ndarray) -> Gaussians:
    t = torch.from_numpy(rows)  # position, opacity, scale, rotation, colour
    return Gaussians.from_rgb(t[:, :3], t[:, 4:7], t[:, 7:11], t[:, 3], t[:, 11:])


def lgm_rows(g: Gaussians) -> np.ndarray:
    return torch.cat([g.means, g.opacities[:, None], g.scales, g.quats, g.rgb], dim=-1).numpy()


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "parity" / "lgm" / "ply.npz")


@pytest.mark.parametrize(("activated", "key"), [(False, "ply_bytes"), (True, "ply_bytes_incompatible")])
def test_lgm_file_is_reproduced(golden, tmp_path, activated, key):
    write_ply(lgm_gaussians(golden["gaussians"]), tmp_path / "x.ply", layout="lgm", activated=activated)
    ours, theirs = (tmp_path / "x.ply").read_bytes(), golden[key].tobytes()
    header = theirs.index(b"end_header\n") + len(b"end_header\n")
    assert ours[:header] == theirs[:header]
    a, b = (np.frombuffer(data[header:], "<f4").reshape(-1, 14) for data in (ours, theirs))
    assert a.shape == b.shape == (74, 14)
    np.testing.assert_allclose(a, b, rtol=4e-7, atol=2e-7)


def test_lgm_file_is_read(golden, shared, tmp_path):
    got = read_ply(shared / "parity" / "lgm" / "gaussians_small.ply")
    np.testing.assert_allclose(lgm_rows(got), golden["loaded"], atol=1e-7)
    (tmp_path / "x.ply").write_bytes(golden["ply_bytes_incompatible"].tobytes())
    np.testing.assert_allclose(lgm_rows(read_ply(tmp_path / "x.ply", activated=True)), golden["loaded"], atol=2e-7)


def test_lgm_layout_prunes_from_0_005_on(tmp_path):
    g = random_gaussians(3, 2)
    g.opacities = torch.tensor([0.0049, 0.005, 0.9])
    write_ply(g, tmp_path / "x.ply", layout="lgm")
    got = read_ply(tmp_path / "x.ply")
    assert got.sh_degree == 0
    torch.testing.assert_close(got.opacities, g.opacities[1:])
    torch.testing.assert_close(got.sh, g.sh[1:, :1])


# ---- the standard layout ----


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_standard_layout_as_plyfile_sees_it(tmp_path, degree):
    g = random_gaussians(50, degree)
    write_ply(g, tmp_path / "x.ply")
    data = plyfile.PlyData.read(str(tmp_path / "x.ply"))
    assert data.byte_order == "<" and not data.text and [e.name for e in data.elements] == ["vertex"]
    vertex = data["vertex"]
    rest = [f"f_rest_{i}" for i in range(3 * ((degree + 1) ** 2 - 1))]
    order = [*MEANS, "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", *SCALES, *QUATS]
    assert [p.name for p in vertex.properties] == order
    assert degree != 3 or len(order) == 62
    assert all(p.val_dtype == "f4" for p in vertex.properties)
    for name, values in stored(g).items():
        np.testing.assert_allclose(vertex[name], values, rtol=2e-5, atol=2e-6, err_msg=name)
    assert float(np.abs(vertex["nx"]).max()) == 0
    assert_same(read_ply(tmp_path / "x.ply"), g)


def test_extreme_values_survive(tmp_path):
    g = random_gaussians(4, 0)
    g.opacities = torch.tensor([0.0, 1.0, 1e-9, 0.5])
    g.scales = torch.tensor([[0.0, 1e-7, 1e3]] * 4)
    g.quats = torch.tensor([[0.0, 0, 0, 0], [5, 0, 0, 0], [0, 1e-20, 0, 0], [0, 0, 3, 4]])
    write_ply(g, tmp_path / "x.ply")
    got = read_ply(tmp_path / "x.ply")
    torch.testing.assert_close(got.opacities, g.opacities, atol=2e-6, rtol=0)
    torch.testing.assert_close(got.scales, g.scales, atol=1e-11, rtol=1e-5)
    expected = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.6, 0.8]])
    torch.testing.assert_close(got.quats, expected)


def test_no_gaussians(tmp_path):
    for layout in ("3dgs", "lgm"):
        write_ply(Gaussians.empty(), tmp_path / "x.ply", layout=layout)
        assert len(read_ply(tmp_path / "x.ply")) == 0
    write_ply(Gaussians.empty(3), tmp_path / "x.ply")
    assert read_ply(tmp_path / "x.ply").sh_degree == 3


# ---- variants of the input ----


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "options", [{"byte_order": "<"}, {"byte_order": ">"}, {"text": True}], ids=["le", "be", "ascii"]
)
def test_any_order_and_encoding(tmp_path, degree, options):
    g = random_gaussians(20, degree, seed=degree)
    columns = stored(g)
    names = list(columns)
    np.random.default_rng(degree).shuffle(names)
    write_with_plyfile(tmp_path / "x.ply", {n: columns[n] for n in names}, **options)
    assert_same(read_ply(tmp_path / "x.ply"), g, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"byte_order": "<"}, {"byte_order": ">"}, {"text": True}], ids=["le", "be", "ascii"]
)
@pytest.mark.parametrize("first", [False, True])
def test_other_types_properties_and_elements(tmp_path, options, first):
    g = random_gaussians(20, 1)
    columns = {"label": np.arange(20), **stored(g), "red": np.full(20, 200), "extra": np.full(20, np.nan)}
    types = {"x": "f8", "opacity": "f8", "label": "u2", "red": "u1", "f_rest_4": "f8"}
    faces = np.empty(3, [("vertex_indices", "O"), ("weight", "f4")])
    faces["vertex_indices"] = [np.arange(3, dtype="i4"), np.arange(5, dtype="i4"), np.arange(0, dtype="i4")]
    same = np.empty(2, [("vertex_indices", "i4", (3,)), ("flag", "u1")])
    same["vertex_indices"], same["flag"] = [[0, 1, 2], [1, 2, 3]], 1
    cameras = np.array([(1.5, 7)], [("fx", "f8"), ("id", "i2")])
    describe = plyfile.PlyElement.describe
    others = [
        describe(faces, "ragged", len_types={"vertex_indices": "u1"}),
        describe(same, "face", len_types={"vertex_indices": "i4"}),
        describe(cameras, "camera"),
    ]
    write_with_plyfile(tmp_path / "x.ply", columns, types, others, first=first, **options)
    assert_same(read_ply(tmp_path / "x.ply"), g, atol=1e-5)


def test_comments_and_windows_line_ends(tmp_path):
    g = random_gaussians(3, 0)
    columns = stored(g)
    header = ["ply", "format ascii 1.0", "comment end of line", "obj_info by hand", "element vertex 3"]
    header += [f"property float {n}" for n in columns] + ["end_header"]
    rows = [" ".join(repr(float(v[i])) for v in columns.values()) for i in range(3)]
    (tmp_path / "x.ply").write_bytes("\r\n".join([*header, *rows, "", ""]).encode())
    assert_same(read_ply(tmp_path / "x.ply"), g)


def test_zero_quaternion_becomes_the_identity(tmp_path):
    columns = stored(random_gaussians(2, 0))
    for n in QUATS:
        columns[n] = np.zeros(2)
    write_with_plyfile(tmp_path / "x.ply", columns)
    assert read_ply(tmp_path / "x.ply").quats.tolist() == [[1, 0, 0, 0]] * 2


def test_a_million_is_quick(tmp_path):
    import time

    rows = np.zeros((300_000, 62), "<f4")
    names = [*MEANS, "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(45))]
    names += ["opacity", *SCALES, *QUATS]
    header = "\n".join(["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"])
    header += "".join(f"\nproperty float {n}" for n in names) + "\nend_header\n"
    (tmp_path / "x.ply").write_bytes(header.encode() + rows.tobytes())
    start = time.perf_counter()
    got = read_ply(tmp_path / "x.ply")
    assert time.perf_counter() - start < 5  # measured 0.3 s; a Python loop over rows takes a minute
    assert len(got) == 300_000 and float(got.opacities[0]) == 0.5 and abs(float(got.rgb[0, 0]) - 0.5) < 1e-6


def test_required_names_are_what_the_constant_says():
    assert len(REQUIRED) == 14 and abs(SH_C0 - 0.5 / np.sqrt(np.pi)) < 1e-12
