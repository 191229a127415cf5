"""Output is whole or absent."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from functools import partial

import pytest

from bozzetto.errors import OutputError
from bozzetto.files.atomic import atomic_path, atomic_write_bytes, atomic_write_text, output_folder


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_writes_into_new_folders_with_ordinary_permissions(tmp_path):
    atomic_write_bytes(tmp_path / "a" / "b" / "x.bin", b"\x01\x02")
    atomic_write_text(tmp_path / "y.txt", "é\n")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a/b/x.bin").read_bytes() == b"\x01\x02"
    assert (tmp_path / "y.txt").read_bytes() == "é\n".encode()
    assert stat.S_IMODE((tmp_path / "a/b/x.bin").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert everything(tmp_path) == ["a", "a/b", "a/b/x.bin", "plain", "y.txt"]


def test_temporary_is_in_the_same_folder_with_the_same_suffix(tmp_path):
    with atomic_path(tmp_path / "film.MP4") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".MP4"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"1")
        assert not (tmp_path / "film.MP4").exists()
    assert everything(tmp_path) == ["film.MP4"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, SystemExit, MemoryError])
def test_nothing_is_left_after_an_exception(tmp_path, kind):
    with pytest.raises(kind), atomic_path(tmp_path / "new" / "x.png") as temporary:
        temporary.write_bytes(b"half")
        raise kind
    assert everything(tmp_path) == []


def test_old_file_survives_a_failure(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "x") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_bytes() == b"old"
    assert everything(tmp_path) == ["x"]


def test_disk_full_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="disk is full"), atomic_path(tmp_path / "x") as temporary:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match="disk is full"), atomic_path(tmp_path / "x") as temporary:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
    assert everything(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_really_full_device(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OutputError), atomic_path(tmp_path / "x") as _, open("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)


def test_missing_input_inside_the_block_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out" / "x"):
        (tmp_path / "elsewhere" / "input.png").read_bytes()


def test_folder_in_the_way(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        atomic_write_bytes(tmp_path / "x.png", b"")


def test_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="folder"):
        atomic_write_bytes(tmp_path / "file" / "x.png", b"")
    with pytest.raises(OutputError, match="is a file"), output_folder(tmp_path / "file"):
        pass


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs an ordinary POSIX user")
def test_no_permission(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="permission"):
        atomic_write_bytes(folder / "x", b"")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc on this system")
def test_unwritable_place():
    with pytest.raises(OutputError, match="cannot write"):
        atomic_write_bytes("/proc/bozzetto/x.png", b"")
    with pytest.raises(OutputError, match="cannot write"), output_folder("/proc/bozzetto"):
        pass


def test_name_too_long(tmp_path):
    with pytest.raises(OutputError, match="too long"):
        atomic_write_bytes(tmp_path / ("x" * 300), b"")
    assert everything(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges")
def test_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


def test_output_folder_moves_everything_at_the_end(tmp_path):
    target = tmp_path / "job" / "out"
    with output_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"a")
        (folder / "b").write_bytes(b"b")
        assert not target.exists()
    assert everything(tmp_path) == ["job", "job/out", "job/out/b", "job/out/sub", "job/out/sub/a"]
    with output_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "c").write_bytes(b"c")
        (folder / "b").write_bytes(b"new")
    assert everything(target) == ["b", "sub", "sub/a", "sub/c"]
    assert (target / "b").read_bytes() == b"new"


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_output_folder_leaves_nothing_behind(tmp_path, existing, kind):
    target = tmp_path / "deep" / "out"
    if existing:
        target.mkdir(parents=True)
        (target / "mine").write_bytes(b"1")
    before = everything(tmp_path)
    with pytest.raises(kind), output_folder(target) as folder:
        (folder / "b").write_bytes(b"b")
        raise kind
    assert everything(tmp_path) == before


def test_output_folder_conflict_moves_nothing(tmp_path):
    (tmp_path / "out" / "b").mkdir(parents=True)
    with pytest.raises(OutputError, match="a folder of that name"), output_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"a")
        (folder / "b").write_bytes(b"b")
    assert everything(tmp_path) == ["out", "out/b"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sub").write_bytes(b"")
    with pytest.raises(OutputError, match="a file of that name"), output_folder(tmp_path / "other") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"a")
    assert everything(tmp_path / "other") == ["sub"]


def test_output_folder_names_the_place_the_user_gave(tmp_path):
    with pytest.raises(OutputError) as caught, output_folder(tmp_path / "out") as folder:
        (folder / "x.png").mkdir()
        atomic_write_bytes(folder / "x.png", b"")
    assert str(tmp_path / "out" / "x.png") in str(caught.value) and ".bozzetto-" not in str(caught.value)
    assert everything(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_every_writer_when_the_device_takes_no_more(tmp_path):
    """A limit on the size of files stands for a full disk: the write fails half-way, in the middle of an encoder."""
    script = """
import resource, sys, torch
from pathlib import Path
from bozzetto.errors import OutputError
from bozzetto.files.images import write_image
from bozzetto.gaussians import Gaussians
from bozzetto.mesh import Mesh
folder, n = Path(sys.argv[1]), 300
points = torch.rand(n, 3)
noise = torch.rand(100, 100, 3)
gaussians = Gaussians.from_rgb(points, points, torch.rand(n, 4), torch.rand(n), points)
mesh = Mesh(points, torch.arange(n).reshape(-1, 3), uvs=points[:, :2], texture=noise)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
jobs = {f"a.{s}": lambda p: write_image(p, noise) for s in ("png", "jpg", "webp")}
jobs |= {"g.ply": gaussians.save, "g.splat": gaussians.save}
jobs |= {"m.glb": mesh.save, "m.obj": mesh.save, "m.ply": mesh.save}
for name, job in jobs.items():
    try:
        job(folder / "new" / name)
        print("no error", name)
    except OutputError as error:
        assert ".bozzetto-" not in str(error), error
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert everything(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_while_writing(tmp_path):
    script = """
import sys, time
from bozzetto.files.atomic import atomic_path, output_folder
with output_folder(sys.argv[1]) as folder, atomic_path(folder / "x.bin") as temporary:
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""
    target = tmp_path / "a" / "out"
    # A shell's background jobs ignore the signal, and so would this process.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heard
    ) as run:
        assert run.stdout.readline() == b"ready\n"
        assert everything(tmp_path) != []
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors and everything(tmp_path) == []
