"""The command line as scripts use it: contract of files, bad input, exit codes, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto import Cameras, Gaussians
from bozzetto.app.cli import COMMANDS, build_parser, main
from bozzetto.camera.transforms_json import write_transforms
from bozzetto.files.images import write_image
from bozzetto.raster import rasterize

RESULTS = {"splats.ply", "turntable.mp4", "preview.png", "viewer.html", "report.json"}


def blob(count: int = 1500) -> Gaussians:
    """A ball whose colour says where +x (red), +y (green) and +z (blue) are."""
    torch.manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return Gaussians.from_rgb(
        direction * 0.5,
        torch.full((count, 3), 0.03),
        torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        torch.full((count,), 0.95),
        direction * 0.5 + 0.5,
    )


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A cut-out of the ball, with alpha."""
    drawn = rasterize(blob(), Cameras.orbit([0.0], 0.0, 1.5, 49.1), 128)
    alpha = drawn.alpha[0, ..., None]
    path = tmp_path_factory.mktemp("photo") / "ball.png"
    write_image(path, torch.cat([drawn.rgb[0] / alpha.clamp_min(1e-3), alpha], dim=-1).clamp(0, 1))
    return path


@pytest.fixture(scope="module")
def splats(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("splats") / "ball.ply"
    blob().save(path)
    return path


@pytest.fixture(scope="module")
def result(photo, tmp_path_factory) -> Path:
    """`bozzetto image` with everything on."""
    out = tmp_path_factory.mktemp("result") / "out"
    assert main(["image", str(photo), "-o", str(out), "--device", "cpu"]) == 0
    return out


def test_image_writes_the_contract(result):
    assert {p.name for p in result.iterdir()} == RESULTS | {"mesh.glb"}
    report = json.loads((result / "report.json").read_text())
    assert report["model"] == "lgm-mini" and report["seed"] == 0 and report["gaussians"] > 1000
    assert {"bozzetto", "torch", "python"} <= report["versions"].keys()
    assert report["timings"]["network"] > 0 and report["files"]["splats.ply"] > 10_000
    picture = np.asarray(Image.open(result / "preview.png").convert("RGB"))
    assert picture.shape[1] == 4 * picture.shape[0] and picture.std() > 10


def test_image_keeps_the_photo_on_the_front(result, photo):
    """From the photo's own camera the splats look like the photo."""
    gaussians = Gaussians.load(result / "splats.ply")
    drawn = rasterize(gaussians, Cameras.orbit([0.0], 0.0, 1.5, 49.1), 256, (1.0, 1.0, 1.0)).rgb[0]
    middle = drawn[96:160, 96:160].mean((0, 1))
    assert middle[2] > middle[0] + 0.1 and middle[2] > middle[1] + 0.1  # +z is blue
    assert float(drawn[:16].mean()) > 0.97


def test_same_seed_same_splats(photo, result, tmp_path):
    assert main(["image", str(photo), "-o", str(tmp_path / "b"), "--device", "cpu", "--no-mesh"]) == 0
    assert (tmp_path / "b" / "splats.ply").read_bytes() == (result / "splats.ply").read_bytes()
    assert {p.name for p in (tmp_path / "b").iterdir()} == RESULTS


def test_several_photos_get_a_folder_each_and_one_bad_one_stops_nobody(photo, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    out = tmp_path / "out"
    assert main(["image", str(photo), str(bad), str(photo), "-o", str(out), "--no-mesh", "--device", "cpu"]) == 2
    assert {p.name for p in out.iterdir()} == {"ball", "ball_2"}
    assert "bad.png" in capsys.readouterr().err


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> tuple[Path, torch.Tensor]:
    """Four posed pictures of a ball of radius 5 at (20, 3, -8), cameras at unequal distances."""
    folder = tmp_path_factory.mktemp("scene")
    matrix = torch.eye(4) * 10
    matrix[3, 3] = 1
    matrix[:3, 3] = torch.tensor([20.0, 3.0, -8.0])
    cameras = Cameras.orbit(
        [10.0, 100.0, 190.0, 280.0], [5.0, 15.0, 0.0, 10.0], [18.0, 20.0, 16.0, 22.0], 45.0, (20, 3, -8)
    )
    drawn = rasterize(blob().transformed(matrix), cameras, 128)
    files = []
    for i in range(4):
        alpha = drawn.alpha[i, ..., None]
        files.append(f"view_{i}.png")
        picture = torch.cat([drawn.rgb[i] / alpha.clamp_min(1e-3), alpha], dim=-1).clamp(0, 1)
        write_image(folder / files[-1], picture)
    write_transforms(folder / "transforms.json", cameras, (128, 128), files)
    return folder, matrix


def test_views_result_lies_in_the_callers_world(scene, tmp_path):
    folder, _ = scene
    out = tmp_path / "out"
    assert main(["views", str(folder), "-o", str(out), "--device", "cpu", "--no-mesh"]) == 0
    gaussians = Gaussians.load(out / "splats.ply").prune(0.3)
    centre = gaussians.means.median(dim=0).values
    assert float((centre - torch.tensor([20.0, 3.0, -8.0])).norm()) < 1.5
    spread = (gaussians.means - centre).norm(dim=-1).quantile(0.9)
    assert 3.5 < float(spread) < 6.5
    # and `render` with the same cameras gives one picture per frame, named like it, that shows the ball
    pictures = tmp_path / "pictures"
    command = ["render", str(out / "splats.ply"), "-o", str(pictures), "--cameras", str(folder / "transforms.json")]
    assert main([*command, "--background", "transparent"]) == 0
    assert sorted(p.name for p in pictures.iterdir()) == [f"view_{i}.png" for i in range(4)]
    got = np.asarray(Image.open(pictures / "view_1.png")).astype(float)
    truth = np.asarray(Image.open(folder / "view_1.png")).astype(float)
    assert got.shape == truth.shape == (128, 128, 4)
    both, either = (
        ((got[..., 3] > 128) & (truth[..., 3] > 128)).sum(),
        ((got[..., 3] > 128) | (truth[..., 3] > 128)).sum(),
    )
    assert both / either > 0.75


def test_render_turntable_sizes_and_backgrounds(splats, tmp_path):
    frames = ["--frames", "2", "--size", "40"]
    assert main(["render", str(splats), "-o", str(tmp_path / "a.mp4"), *frames]) == 0
    assert main(["render", str(splats), "-o", str(tmp_path / "a.gif"), *frames, "--background", "black"]) == 0
    assert main(["render", str(splats), "-o", str(tmp_path / "png"), *frames, "--background", "transparent"]) == 0
    picture = np.asarray(Image.open(sorted((tmp_path / "png").iterdir())[0]))
    assert picture.shape == (40, 40, 4) and picture[0, 0, 3] == 0 and picture[20, 20, 3] > 240
    assert main(["render", str(splats), "-o", str(tmp_path / "b.mp4"), *frames, "--background", "transparent"]) == 2


def test_convert_and_mesh(splats, tmp_path):
    assert main(["convert", str(splats), str(tmp_path / "a.splat")]) == 0
    assert main(["convert", str(tmp_path / "a.splat"), str(tmp_path / "b.ply"), "--layout", "lgm"]) == 0
    assert main(["convert", str(splats), str(tmp_path / "v.html")]) == 0
    assert len(Gaussians.load(tmp_path / "b.ply")) == 1500
    assert main(["mesh", str(splats), "-o", str(tmp_path / "m.glb"), "--faces", "3000", "--texture", "256"]) == 0
    assert main(["convert", str(tmp_path / "m.glb"), str(tmp_path / "m.obj")]) == 0
    assert (tmp_path / "m.obj").is_file()
    assert main(["convert", str(tmp_path / "m.glb"), str(tmp_path / "m.ply")]) == 0
    assert main(["convert", str(tmp_path / "m.ply"), str(tmp_path / "n.glb")]) == 0
    for a, b in (("x.stl", "y.ply"), ("ball.ply", "mesh.glb")):
        (tmp_path / a).write_bytes(splats.read_bytes())
        assert main(["convert", str(tmp_path / a), str(tmp_path / b)]) == 2


def test_view_writes_a_page(splats, tmp_path):
    assert main(["view", str(splats), "-o", str(tmp_path / "v.html"), "--no-open"]) == 0
    assert (tmp_path / "v.html").stat().st_size > 10_000
    assert main(["view", str(tmp_path), "--no-open"]) == 2  # a folder without results


def test_models_lists_every_entry(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "lgm-mini" in text and "bundled" in text and "lgm-big" in text


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_shows_a_working_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser(command).parse_args([command, "--help"])
    assert stop.value.code == 0
    assert f"bozzetto {command} " in capsys.readouterr().out.split("examples:")[1] + " "


def picture(path: Path, size=(64, 64), mode="RGB", color=0) -> Path:
    Image.new(mode, size, color).save(path)
    return path


BAD = {
    "missing": lambda d: d / "none.png",
    "empty": lambda d: ((d / "e.png").write_bytes(b"") and None) or d / "e.png",
    "text": lambda d: (d / "t.png").write_text("hello") and d / "t.png",
    "folder": lambda d: d,
    "transparent": lambda d: picture(d / "a.png", mode="RGBA"),
    "one pixel": lambda d: picture(d / "p.png", (1, 1)),
    "flat grey": lambda d: picture(d / "g.png", (200, 200), "L", 128),
    "thread": lambda d: picture(d / "l.png", (3000, 1)),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_photos_give_one_clear_line_and_no_output(kind, tmp_path, capsys):
    source = BAD[kind](tmp_path)
    out = tmp_path / "deep" / "out"
    code = main(["image", str(source), "-o", str(out), "--no-mesh", "--device", "cpu"])
    err = capsys.readouterr().err
    assert code == 2 and err.startswith("bozzetto: ") and "Traceback" not in err
    assert not out.exists() and not out.parent.exists()


def test_bad_transforms_leave_nothing(scene, tmp_path, capsys):
    source = json.loads((scene[0] / "transforms.json").read_text())
    source["frames"][1]["transform_matrix"] = [[0.0] * 4] * 3 + [[0, 0, 0, 1]]
    (tmp_path / "transforms.json").write_text(json.dumps(source))
    for i in range(4):
        (tmp_path / f"view_{i}.png").write_bytes((scene[0] / f"view_{i}.png").read_bytes())
    assert main(["views", str(tmp_path), "-o", str(tmp_path / "out"), "--no-mesh"]) == 2
    assert "singular" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_unknown_and_unfit_models(photo, tmp_path, capsys):
    assert main(["image", str(photo), "-o", str(tmp_path / "o"), "--model", "nonsense"]) == 2
    assert "lgm-mini" in capsys.readouterr().err
    assert main(["image", str(photo), "-o", str(tmp_path / "o"), "--model", "u2netp"]) == 2
    assert "lgm-mini" in capsys.readouterr().err
    assert main(["image", str(photo), "-o", str(tmp_path / "o"), "--model", "l4gm"]) == 2
    assert "lgm-mini" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_unwritable_output(photo, tmp_path):
    (tmp_path / "file").write_text("here")
    assert main(["image", str(photo), "-o", str(tmp_path / "file"), "--no-mesh", "--device", "cpu"]) == 4
    assert (tmp_path / "file").read_text() == "here"


def test_usage_errors_exit_with_two(capsys):
    for arguments in (["image"], ["nonsense"], ["image", "a.png"], ["image", "a.png", "-o", "o", "--crop", "1,2"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_piped_output_is_just_paths(splats, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bozzetto", "convert", str(splats), str(tmp_path / "a.splat")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.strip() == str(tmp_path / "a.splat")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_leaves_nothing(splats, tmp_path):
    out = tmp_path / "turntable"
    command = [sys.executable, "-m", "bozzetto", "render", str(splats), "-o", str(out), "--background", "transparent"]
    # A shell's background jobs ignore the signal, and so would this process.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen([*command, "--frames", "5000"], stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    deadline = time.time() + 60
    while time.time() < deadline and not list(tmp_path.glob("*/*.png")) and not list(tmp_path.glob(".*/*.png")):
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in err and "stopped" in err, err
    assert list(tmp_path.iterdir()) == []


def test_import_is_light():
    """`import bozzetto` loads neither torch nor the compilers; the command's help does not either."""
    code = "import bozzetto, sys; print([m for m in ('torch', 'numba', 'av', 'skimage') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(("given", "wanted"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_of_torch_do_not_spin(given, wanted):
    """Set before torch is loaded, unless the user has set it."""
    script = (
        "import os, sys; from bozzetto.app.cli import main; assert 'torch' not in sys.modules; "
        "main(['models', 'lgm-mini', '-q']); print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == wanted, done.stderr
