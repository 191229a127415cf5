"""The .4dgs file: what survives a round trip, what another reader sees in it, and which files are refused."""

import math
import struct

import numpy as np
import pytest
import torch

from bozzetto.errors import OutputError, SplatFileError
from bozzetto.files.sequence import read_sequence, stack_frames, time_frames, write_sequence
from bozzetto.gaussians import Gaussians, quaternion_to_matrix

UP = (0.0, 1.0, 0.0)


def moving(frames=5, count=200, degree=0, seed=0):
    """Gaussians [T, N] of a cloud that drifts along x."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=g) * 0.3
    drift = torch.linspace(0, 0.5, frames)[:, None, None] * torch.tensor([1.0, 0, 0])
    shape = (frames, count)
    sh = torch.randn(frames, count, (degree + 1) ** 2, 3, generator=g) * 0.3
    sh[:, :, 0] = (torch.rand(frames, count, 3, generator=g) - 0.5) / 0.28209479177387814
    return Gaussians(
        means + drift,
        torch.rand(*shape, 3, generator=g) * 0.05 + 0.001,
        torch.randn(*shape, 4, generator=g),
        torch.rand(*shape, generator=g) * 0.95 + 0.04,
        sh,
    )


def assert_close(found, expected, degree=0):
    expected = expected.prune(1 / 255)
    assert len(found) == len(expected)
    assert float((found.means - expected.means).abs().max()) < 5e-5
    assert float((found.scales / expected.scales - 1).abs().max()) < 0.0051
    turn = quaternion_to_matrix(found.quats) - quaternion_to_matrix(expected.quats)
    assert float(turn.abs().max()) < 0.004
    assert float((found.opacities - expected.opacities).abs().max()) < 0.001
    assert float((found.rgb - expected.rgb.clamp(0, 1)).abs().max()) < 0.001
    if degree:
        assert float((found.sh[:, 1:] - expected.sh[:, 1:]).abs().max()) < 0.0158


@pytest.mark.parametrize("degree", [0, 2, 3])
def test_round_trip(tmp_path, degree):
    gaussians = moving(degree=degree)
    write_sequence(tmp_path / "a.4dgs", gaussians, 12.5, up=(0, 0, 1))
    sequence = read_sequence(tmp_path / "a.4dgs")
    assert (len(sequence), sequence.fps, sequence.up, sequence.notes) == (5, 12.5, (0, 0, 1), [])
    for k in (3, 0, 4, -2):
        assert sequence[k].sh_degree == degree
        assert_close(sequence[k], gaussians[k], degree)
    with pytest.raises(IndexError):
        sequence[5]


def test_frames_of_different_numbers_and_strays(tmp_path):
    frames = time_frames(moving())
    frames[1] = frames[1].select(torch.arange(50))
    frames[2] = Gaussians.empty()
    frames[3].means[0] = torch.tensor([1e5, 0, 0])  # far away: keeps the others precise
    frames[4].opacities[:10] = 0.001
    frames[4].means[11] = math.nan
    frames[4].quats[12] = 0.0
    write_sequence(tmp_path / "a.4dgs", frames, 30)
    sequence = read_sequence(tmp_path / "a.4dgs")
    assert [len(sequence[k]) for k in range(5)] == [200, 50, 0, 200, 189]
    assert abs(float(sequence[3].means[0, 0]) - 1e5) < 1
    assert float((sequence[3].means[1:] - frames[3].means[1:]).abs().max()) < 5e-4
    stacked = sequence.stack()
    assert stacked.batch_shape == (5,) and len(stacked) == 200
    assert float(stacked.opacities[2].max()) == 0
    assert len(stacked[1].prune()) == 50


def test_it_is_compact(tmp_path):
    gaussians = moving(3, 4000)
    write_sequence(tmp_path / "a.4dgs", gaussians, 30)
    assert (tmp_path / "a.4dgs").stat().st_size < 3 * 4000 * 22  # random splats: nothing to predict
    order = gaussians[0].means[:, 0].argsort()
    smooth = Gaussians(*(t[:, order] for t in gaussians.tensors()))
    write_sequence(tmp_path / "b.4dgs", smooth, 30)
    assert (tmp_path / "b.4dgs").stat().st_size < (tmp_path / "a.4dgs").stat().st_size


@pytest.mark.parametrize("degree", [0, 3])
def test_another_reader_agrees(tmp_path, degree):
    fourdgs = pytest.importorskip("fourdgs")
    from fourdgs.validate import validate

    gaussians = moving(4, 60, degree)
    write_sequence(tmp_path / "a.4dgs", gaussians, 10, title="Tasse à café")
    report = validate((tmp_path / "a.4dgs").read_bytes())
    assert not report.findings, report.findings
    scene = fourdgs.read(tmp_path / "a.4dgs")
    assert scene.duration_sec == pytest.approx(0.4)
    assert scene.header.gaussian_count == scene.gaussians.count == 240
    for k in range(4):
        state = scene.gaussians.state_at(0.1 * k + 0.05)
        ours = read_sequence(tmp_path / "a.4dgs")[k]
        assert np.allclose(state["centers"], ours.means.numpy(), atol=1e-6)
        assert_close(ours, gaussians[k], degree)
    theirs = scene.gaussians
    first = theirs.win_lo < 0.05
    ours = read_sequence(tmp_path / "a.4dgs")[0]
    assert np.allclose(theirs.scales[first], ours.scales.numpy(), rtol=1e-5)
    assert np.allclose(theirs.rotations[first][:, [3, 0, 1, 2]], ours.quats.numpy(), atol=1e-5)
    assert np.allclose(theirs.colors[first][:, :3], ours.rgb.numpy(), atol=1e-5)
    assert np.allclose(theirs.colors[first][:, 3], ours.opacities.numpy(), atol=1e-5)
    if degree:
        values = theirs.sh[first].astype(np.float32) * (8 / 255) - 4
        expected = ours.sh[:, 1:].permute(0, 2, 1).reshape(60, -1).numpy()
        assert np.allclose(values, expected, atol=1e-5)


def test_another_writers_moving_splats(tmp_path):
    fourdgs = pytest.importorskip("fourdgs")
    rng = np.random.default_rng(0)
    n = 100
    quats = rng.normal(size=(n, 4))
    scene = fourdgs.GaussianSet(
        positions=rng.normal(size=(n, 3)).astype(np.float32),
        scales=rng.uniform(0.01, 0.1, (n, 3)).astype(np.float32),
        rotations=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        colors=rng.uniform(0, 1, (n, 4)).astype(np.float32),
        motions=rng.normal(size=(n, 3)).astype(np.float32),
        mu_t=rng.uniform(0, 1, n).astype(np.float32),
        sigma_t=np.where(np.arange(n) % 3, rng.uniform(0.1, 0.5, n), np.inf).astype(np.float32),
        win_lo=np.where(np.arange(n) % 2, 0.0, 0.5).astype(np.float32),
        win_hi=np.ones(n, np.float32),
    )
    fourdgs.write(tmp_path / "a.4dgs", scene, 1.0)
    theirs = fourdgs.read(tmp_path / "a.4dgs").gaussians
    sequence = read_sequence(tmp_path / "a.4dgs")
    assert sequence.fps == 30 and len(sequence) == 30
    for t in (0.1, 0.55, 0.9):
        state = theirs.state_at(t)
        ours = sequence.at(t)
        assert len(ours) == len(state["centers"])
        order, mine = np.lexsort(state["centers"].T), np.lexsort(ours.means.numpy().T)
        assert np.allclose(state["centers"][order], ours.means.numpy()[mine], atol=1e-4)


def test_cut_short(tmp_path):
    write_sequence(tmp_path / "a.4dgs", moving(), 10)
    data = (tmp_path / "a.4dgs").read_bytes()
    (tmp_path / "b.4dgs").write_bytes(data[: len(data) * 6 // 10])
    sequence = read_sequence(tmp_path / "b.4dgs")
    assert 1 <= len(sequence) < 5
    assert "cut short" in sequence.notes[0]
    assert_close(sequence[0], moving()[0])


def test_refused(tmp_path):
    write_sequence(tmp_path / "a.4dgs", moving(), 10)
    data = (tmp_path / "a.4dgs").read_bytes()
    cases = {
        "is not a 4dgs file": b"ply\nformat ascii 1.0\n",
        "header is missing": data[:40],
        "no whole chunk": data[:700],
        "keyframe-delta": data.replace(b"gaussian-birth", b"keyframe-delta"),
        "quantisation": data.replace(b"uniform-v1", b"uniform-v9"),
    }
    for message, content in cases.items():
        (tmp_path / "b.4dgs").write_bytes(content)
        with pytest.raises(SplatFileError, match=message):
            read_sequence(tmp_path / "b.4dgs")
    with pytest.raises(SplatFileError, match="does not exist"):
        read_sequence(tmp_path / "c.4dgs")
    with pytest.raises(OutputError, match=r"\.4dgs"):
        write_sequence(tmp_path / "a.ply", moving(), 10)
    with pytest.raises(ValueError, match="fps"):
        write_sequence(tmp_path / "d.4dgs", moving(), 0)
    with pytest.raises(ValueError, match="frame"):
        write_sequence(tmp_path / "d.4dgs", [], 10)
    with pytest.raises(ValueError, match="time"):
        write_sequence(tmp_path / "d.4dgs", moving()[0], 10)
    assert not (tmp_path / "d.4dgs").exists()


def test_damaged_bytes_never_crash(tmp_path):
    write_sequence(tmp_path / "a.4dgs", moving(2, 30, 1), 10)
    data = bytearray((tmp_path / "a.4dgs").read_bytes())
    rng = np.random.default_rng(1)
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(8, len(data), 3):
            broken[at] = rng.integers(256)
        (tmp_path / "b.4dgs").write_bytes(broken)
        try:
            sequence = read_sequence(tmp_path / "b.4dgs")
            for k in range(min(len(sequence), 3)):
                sequence[k]
        except SplatFileError:
            pass


def test_stack_of_unequal_frames():
    frames = [moving(1, 3)[0], moving(1, 5)[0]]
    assert stack_frames(frames).opacities.shape == (2, 5)
    assert struct.calcsize("<BQ") == 9  # the record head that the reader steps over
