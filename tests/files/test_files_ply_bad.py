"""Splat PLY files that are refused, each with what is wrong with it; what cannot be written leaves nothing."""

from __future__ import annotations

import numpy as np
import plyfile
import pytest
from test_files_ply import random_gaussians, stored, write_with_plyfile

from bozzetto.errors import OutputError, SplatFileError
from bozzetto.files.ply import read_ply, write_ply
from bozzetto.gaussians import Gaussians


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    return stored(random_gaussians(10, 1))


def refuse(path, match: str, **options) -> None:
    with pytest.raises(SplatFileError, match=match) as caught:
        read_ply(path, **options)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("missing", [["opacity"], ["x", "rot_3"], ["f_rest_3"], ["scale_2"], ["f_dc_1"]])
def test_missing_fields_are_named(tmp_path, columns, missing):
    write_with_plyfile(tmp_path / "x.ply", {n: v for n, v in columns.items() if n not in missing})
    refuse(tmp_path / "x.ply", "f_rest" if missing == ["f_rest_3"] else ", ".join(missing))


def test_gap_in_f_rest(tmp_path, columns):
    columns["f_rest_9"] = columns.pop("f_rest_3")
    write_with_plyfile(tmp_path / "x.ply", columns)
    refuse(tmp_path / "x.ply", "f_rest_3")


def test_point_cloud_mesh_and_compressed(tmp_path):
    points = {"x": np.zeros(3), "y": np.zeros(3), "z": np.zeros(3), "red": np.zeros(3)}
    write_with_plyfile(tmp_path / "x.ply", points)
    refuse(tmp_path / "x.ply", "point cloud")
    faces = np.array([((0, 1, 2),)], [("vertex_indices", "i4", (3,))])
    write_with_plyfile(tmp_path / "x.ply", points, others=[plyfile.PlyElement.describe(faces, "face")])
    refuse(tmp_path / "x.ply", "mesh")
    write_with_plyfile(tmp_path / "x.ply", {"packed_position": np.zeros(2)})
    refuse(tmp_path / "x.ply", "compressed")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("name", ["x", "opacity", "scale_1", "rot_0", "f_dc_2", "f_rest_8"])
def test_not_finite(tmp_path, columns, name, value):
    columns[name] = columns[name].astype(np.float64)
    columns[name][[2, 5]] = value
    write_with_plyfile(tmp_path / "x.ply", columns, types={name: "f8"})
    refuse(tmp_path / "x.ply", "2 of 10 Gaussians have NaN or infinite")


def test_infinitely_large(tmp_path, columns):
    columns["scale_0"] = np.full(10, 500.0)
    write_with_plyfile(tmp_path / "x.ply", columns)
    refuse(tmp_path / "x.ply", "10 of 10 Gaussians are infinitely large")


def test_logits_read_as_activated(tmp_path, columns):
    write_with_plyfile(tmp_path / "x.ply", columns)
    refuse(tmp_path / "x.ply", "activated=False", activated=True)


@pytest.mark.parametrize("text", [False, True])
def test_wrong_count(tmp_path, columns, text):
    write_with_plyfile(tmp_path / "x.ply", columns, text=text)
    good = (tmp_path / "x.ply").read_bytes()
    for count, match in ((11, "promises 11 rows of vertex, the file holds 10"), (9, "goes on for")):
        (tmp_path / "x.ply").write_bytes(good.replace(b"vertex 10\n", b"vertex %d\n" % count))
        refuse(tmp_path / "x.ply", match)
    for count in (b"-1", b"ten", b"9999999999999", b""):
        (tmp_path / "x.ply").write_bytes(good.replace(b"vertex 10\n", b"vertex " + count + b"\n"))
        refuse(tmp_path / "x.ply", "promises|malformed")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("text", [False, True])
def test_truncated(tmp_path, columns, share, text):
    write_with_plyfile(tmp_path / "x.ply", columns, text=text)
    data = (tmp_path / "x.ply").read_bytes()
    (tmp_path / "x.ply").write_bytes(data[: int(len(data) * share)])
    refuse(tmp_path / "x.ply", "truncated|has .* values")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"ply\n", b"plx\n", "not a PLY"),
        (b"format binary_little_endian 1.0\n", b"", "no format"),
        (b"binary_little_endian", b"binary_middle_endian", "unknown PLY format"),
        (b"element vertex", b"element points", "no element 'vertex'"),
        (b"property float y\n", b"property float x\n", "twice"),
        (b"property float y\n", b"property quad y\n", "malformed line.*quad"),
        (b"property float y\n", b"property float\n", "malformed"),
        (b"property float y\n", b"porperty float y\n", "unknown line"),
        (b"property float y\n", b"property list uchar float y\n", "list"),
        (b"end_header", b"end_heeder", "end_header"),
        (b"element vertex 10\n", b"", "malformed"),
    ],
)
def test_wrong_header(tmp_path, columns, old, new, match):
    write_with_plyfile(tmp_path / "x.ply", columns, byte_order="<")
    data = (tmp_path / "x.ply").read_bytes()
    assert old in data
    (tmp_path / "x.ply").write_bytes(data.replace(old, new, 1))
    refuse(tmp_path / "x.ply", match)


def test_words_among_the_numbers(tmp_path, columns):
    write_with_plyfile(tmp_path / "x.ply", columns, text=True)
    lines = (tmp_path / "x.ply").read_text().split("\n")
    lines[-3] = lines[-3].replace(lines[-3].split()[3], "four", 1)
    (tmp_path / "x.ply").write_text("\n".join(lines))
    refuse(tmp_path / "x.ply", "not a number|values")
    (tmp_path / "x.ply").write_bytes(b"ply\nformat ascii 1.0\n\xff\xfe\nend_header\n")
    refuse(tmp_path / "x.ply", "unknown line")


def test_missing_empty_folder_other(tmp_path):
    refuse(tmp_path / "no.ply", "does not exist")
    (tmp_path / "x.ply").write_bytes(b"")
    refuse(tmp_path / "x.ply", "empty")
    refuse(tmp_path, "is a folder")
    (tmp_path / "x.ply").write_bytes(bytes(1000))
    refuse(tmp_path / "x.ply", "not a PLY")


def test_writing_refuses_and_leaves_nothing(tmp_path):
    g = random_gaussians(5, 0)
    g.means[3, 1] = float("nan")
    with pytest.raises(SplatFileError, match="1 of 5"):
        write_ply(g, tmp_path / "x.ply")
    batch = Gaussians(*(t[None] for t in random_gaussians(5).tensors()))
    with pytest.raises(ValueError, match="batch"):
        write_ply(batch, tmp_path / "x.ply")
    with pytest.raises(ValueError, match="layout"):
        write_ply(random_gaussians(5), tmp_path / "x.ply", layout="ply")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.ply").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_ply(random_gaussians(5), tmp_path / "x.ply")
