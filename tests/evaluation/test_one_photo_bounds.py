"""tools/one_photo_bounds.py: what oracles score on a ball whose answers are known."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_shapes import sphere, surface_splats

from bozzetto.data.render import SceneBatch
from bozzetto.evaluation import run
from bozzetto.evaluation.models import Measured
from bozzetto.evaluation.pictures import score_pictures
from bozzetto.evaluation.protocol import grid_cameras, novel_of_grid

TOOL = Path(__file__).resolve().parents[2] / "tools" / "one_photo_bounds.py"
SIZE = 48
SHOWN = novel_of_grid(1)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("one_photo_bounds", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    """Imagines a red ball that is too small, whatever it is shown."""
    points = sphere(radius=0.35).vertices
    red = torch.tensor([0.8, 0.2, 0.2]).expand(len(points), 3).numpy()
    return Measured("small", torch.device("cpu"), lambda rgba, cameras: surface_splats(points, red, 0.05), ("1view",))


@pytest.fixture(scope="module")
def measured(tool, model):
    return tool.measure_object(model, sphere(), SHOWN, SIZE)


def test_network_and_white_score_as_in_the_protocol(measured, model):
    whole = run.measure_object(model, sphere(), size=SIZE)
    full, foreground = measured["network"].nanmean(0).tolist()
    assert full == pytest.approx(whole.scores["1view"]["grid"]["psnr"], abs=1e-3)
    assert foreground == pytest.approx(whole.scores["1view"]["grid"]["foreground"], abs=1e-3)
    truth = run.true_pictures(sphere(), grid_cameras()[SHOWN], size=SIZE)
    white = score_pictures(torch.ones_like(truth[..., :3]), truth)
    assert torch.allclose(measured["white"], torch.stack([white.psnr, white.foreground], -1), atol=1e-4)


def test_angles_share_the_views_out(tool):
    groups = tool.angle_groups(SHOWN)
    assert groups[0].all() and torch.equal(groups[1:].sum(0), torch.ones(len(SHOWN), dtype=torch.long))
    assert groups.sum(1).tolist() == [63, 11, 16, 8, 24, 4]
    assert [SHOWN[i] for i in groups[5].nonzero()[:, 0]] == [8, 24, 40, 56]


def test_photo_sees_the_near_side_of_a_ball(measured):
    seen = dict(zip(SHOWN, measured["share seen in the photo"][:, 0].tolist()))
    assert seen[8] == 0  # from behind
    assert seen[1] > seen[2] > seen[3] > seen[4] > seen[5] > seen[6] > 0
    assert seen[1] > 0.8 and 0.2 < seen[4] < 0.5
    assert seen[1] == pytest.approx(seen[15], abs=0.03)


def test_who_knows_more_scores_more(measured):
    mean = {name: values[:, 0].mean() for name, values in measured.items() if values.shape[1] == 2}
    known = [f"true shape, {x}" for x in ("seen: true, unseen: their own mean", "seen: true, unseen: photo's mean")]
    assert mean[known[0]] > mean[known[1]] > mean["true shape, photo's mean"] > mean["network"] > mean["white"]
    assert mean["network"] < mean["network's outlines, true colours"] < mean["true shape, photo's mean"]
    assert mean["network, as deep as suits its new views best"] > mean["network"]  # which is too small
    for row in ("true colours, {} times as deep", "– and the photo unchanged, {}"):
        assert mean[row.format("0.9")] > mean[row.format("0.8")] and mean[row.format("1.1")] > mean[row.format("1.25")]
    assert mean["true colours, turned by 5°"] > 20  # outlines of a ball stay
    assert float(measured["share left empty by the network"].min()) > 0.1
    assert float(measured["share drawn beside it by the network"].max()) < 0.1


def test_moved_objects(tool):
    scene, camera = SceneBatch.pack([sphere()]), grid_cameras()[:1]
    deep, same = tool.stretched(scene, 1.25), tool.stretched(scene, 1.25, camera)
    assert torch.allclose(deep.vertices, scene.vertices * torch.tensor([1, 1, 1.25]))
    assert torch.allclose(same.vertices[:, 2], deep.vertices[:, 2], atol=1e-6)
    places = [camera.project(s.vertices[None])[0] for s in (scene, deep, same)]
    assert torch.allclose(places[0], places[2], atol=1e-5) and not torch.allclose(places[0], places[1], atol=1e-2)
    quarter = tool.turned(scene, 90).vertices  # what looked towards +z looks towards +x
    assert torch.allclose(quarter[:, 0], scene.vertices[:, 2], atol=1e-6)


def test_table_takes_the_mean_of_means(tool):
    def of(value: float) -> dict:
        return {"row": torch.full((63, 2), value), "share": torch.full((63, 1), value / 100)}

    lines = tool.table([[of(10.0), of(20.0)], [of(25.0)]], SHOWN).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].startswith("| row | 20.00 / 20.00 |") and lines[3].startswith("| share | 20% |")


def test_tool_explains_itself():
    result = subprocess.run([sys.executable, str(TOOL), "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "--objects" in result.stdout
