"""LGM end to end: what reaches the diffusion, what reaches LGM, and which candidate is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from known_object import CONFIG, KnownDiffusion, column, known_object, look, white
from micro_lgm import MICRO, fill_seeded, write_micro_lgm
from torch import nn

from bozzetto import Cameras
from bozzetto.errors import BozzettoError, CheckpointError, ForegroundError, InputError
from bozzetto.job import Job
from bozzetto.raster import rasterize
from bozzetto.systems.lgm import imagine, pipeline
from bozzetto.systems.lgm.checkpoint import load_lgm
from bozzetto.systems.lgm.heads import lgm_head
from bozzetto.systems.lgm.inputs import lgm_inputs
from bozzetto.systems.lgm.loaded import LoadedLGM
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.options import PhotoOptions, TextOptions
from bozzetto.systems.mvdream import checkpoint as mvdream_checkpoint


class StandIn:
    """A diffusion model that remembers what it was asked and answers with view v of candidate c in the colour (c + v) / 10."""

    def __init__(self) -> None:
        self.asked: dict = {}

    def generate(self, prompts, images=None, **asked):
        self.asked = asked | {"prompts": prompts, "images": images}
        if "progress" in asked:
            asked["progress"](1.0)
        size, count = asked["size"], asked["candidates"]
        shade = torch.arange(count)[:, None] + torch.arange(4)  # [C, 4]
        return (shade / 10.0)[None, :, :, None, None, None].expand(1, count, 4, size, size, 3)


@pytest.fixture
def diffusion(monkeypatch):
    model = StandIn()
    monkeypatch.setattr(mvdream_checkpoint, "load_mvdream", lambda folder, device: model)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lgm")
    paths = write_micro_lgm(folder) | {"imagedream": folder, "mvdream": folder}
    return {name: str(path) for name, path in paths.items()}


@pytest.fixture
def job(weights):
    return Job(torch.device("cpu"), seed=3, weights=weights)


def photo() -> torch.Tensor:
    rgba = torch.zeros(60, 40, 4)
    rgba[10:40, 5:25] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    return rgba


def test_published_defaults():
    photo, text = PhotoOptions(), TextOptions()
    assert (photo.steps, photo.guidance, photo.prompt, photo.negative_prompt, photo.elevation) == (30, 5.0, "", "", 0.0)
    assert (text.steps, text.guidance, text.elevation, text.solver) == (30, 7.5, 0.0, "ddim")
    for wrong in ({"steps": 0}, {"guidance": -1.0}, {"solver": "euler"}, {"elevation": 91.0}, {"candidates": 0}):
        with pytest.raises(InputError):
            PhotoOptions(**wrong)


def test_photo_is_centred_on_white(diffusion, job):
    asset = pipeline.from_photo(photo(), PhotoOptions(prompt="a mug", elevation=10.0, steps=7), job)
    asked = diffusion.asked
    picture = asked["images"][0]
    assert picture.shape == (256, 256, 3)
    red = (picture - torch.tensor([1.0, 0.0, 0.0])).abs().sum(-1) < 1e-3
    rows, columns = torch.where(red.any(1))[0], torch.where(red.any(0))[0]
    assert (int(rows[0]), int(rows[-1])) == (25, 229)  # 205 of 256 pixels: a border of 0.2
    assert abs(int(columns[0]) + int(columns[-1]) - 255) <= 1
    assert picture[0, 0].tolist() == [1, 1, 1]
    assert asked["prompts"] == ["a mug"] and asked["seed"] == 3 and asked["negative"] == ""
    assert (asked["steps"], asked["guidance"], asked["elevation"], asked["solver"]) == (7, 5.0, 10.0, "ddim")
    assert asset.mesh is None and len(asset.gaussians) > 1000


def test_views_come_in_lgms_order(diffusion, job):
    views = imagine.imagine_views(job, "a mug", candidates=2)
    assert views.shape == (2, 4, 256, 256, 3)
    assert (10 * views[0, :, 0, 0, 0]).round().tolist() == [1, 2, 3, 0]
    assert diffusion.asked["images"] is None and diffusion.asked["candidates"] == 2


def test_level_views_give_what_the_network_gives(weights):
    network = load_lgm(weights["lgm-big"])
    assert network.config == MICRO
    views = torch.rand(4, 256, 256, 4, generator=torch.Generator().manual_seed(0))
    views[..., 3] = 1.0
    gaussians = pipeline.reconstruct_views(network, views)
    error = pipeline.share_missed(gaussians, network, views)
    cameras = Cameras.orbit(pipeline.RING)[None]
    with torch.no_grad():
        raw = network(lgm_inputs(views[..., :3].permute(0, 3, 1, 2)[None], cameras, 256))
    direct = lgm_head(raw)[0]
    for ours, theirs in zip(gaussians.tensors(), direct.tensors()):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert 0 < error < 1


def test_the_candidate_that_agrees_best_is_kept(diffusion, job):
    pipeline.from_photo(photo(), PhotoOptions(candidates=3), job)
    errors = job.report["view_errors"]
    assert list(errors) == ["0", "1", "2"] and len(set(errors.values())) == 3
    assert errors[str(job.report["chosen_candidate"])] == min(errors.values())
    shown = job.pictures["views.png"]
    assert shown.shape[:2] == (256, 1024)
    first = round(10 * float(shown[0, 0, 0]))  # view 1 of the chosen candidate
    assert first == job.report["chosen_candidate"] + 1


@pytest.mark.parametrize("candidates", [1, 3])
def test_a_loaded_model_gives_what_the_pipeline_gives(diffusion, job, weights, candidates):
    options = PhotoOptions(prompt="a mug", candidates=candidates, elevation=10.0)
    wanted = pipeline.from_photo(photo(), options, job).gaussians
    asked = {k: v for k, v in diffusion.asked.items() if k not in ("progress", "images")}
    picture = diffusion.asked["images"]
    loaded = LoadedLGM(diffusion, load_lgm(weights["lgm-big"]))
    result = loaded(photo(), options=options, seed=3)
    assert {k: v for k, v in diffusion.asked.items() if k != "images"} == asked
    assert torch.equal(diffusion.asked["images"], picture)
    assert all(torch.equal(a, b) for a, b in zip(result.tensors(), wanted.tensors()))


def test_lgm_mini_is_not_taken_for_lgm():
    from bozzetto.zoo.load import bundled_path

    with pytest.raises(CheckpointError, match="lgm-mini"):
        LoadedLGM(StandIn(), load_lgm(bundled_path("lgm-mini.safetensors")))


def test_text_views_are_cut_out_and_centred(diffusion, job, monkeypatch):
    def cut(view):
        if float(view.mean()) > 0.35:  # of candidate 1, the view of shade 0.4
            raise ForegroundError("nothing there")
        rgba = torch.zeros(*view.shape[:2], 4)
        rgba[:50, :50] = torch.cat([view, torch.ones_like(view[..., :1])], dim=-1)[:50, :50]
        return rgba

    seen, named = [], []
    monkeypatch.setattr(pipeline, "cutout", cut)
    monkeypatch.setattr(
        pipeline, "_best", lambda views, numbers, elevation, job: seen.append(views) or named.append(numbers)
    )
    pipeline.from_text("a mug", TextOptions(candidates=2), job)
    views = seen[0]
    assert named == [[0]]
    assert views.shape == (1, 4, 256, 256, 4) and job.report["candidates_without_object"] == 1
    alpha = views[0, 0, ..., 3]
    assert alpha[128, 128] == 1 and alpha[:20].max() == 0 and alpha[-20:].max() == 0
    assert (10 * views[0, :, 128, 128, 0]).round().tolist() == [1, 2, 3, 0]
    assert diffusion.asked["guidance"] == 7.5 and "ugly" in diffusion.asked["negative"]

    monkeypatch.setattr(pipeline, "cutout", lambda view: (_ for _ in ()).throw(ForegroundError("nothing there")))
    with pytest.raises(ForegroundError, match="--seed"):
        pipeline.from_text("a mug", TextOptions(), job)
    pipeline.from_text("a mug", TextOptions(cut_views=False), job)
    assert float(seen[-1][..., 3].min()) == 1.0


def shrunk(factor):
    return known_object().transformed(torch.diag(torch.tensor([factor, factor, factor, 1.0])))


@pytest.fixture
def known(monkeypatch):
    """The diffusion draws a known object; in LGM's place, what answers with the object if all views show it as they should."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.config = nn.Parameter(torch.zeros(1)), CONFIG

    def reconstruct(model, rgba, cameras, dtype=None):
        views = rgba[0, :, :3] * rgba[0, :, 3:] + 1 - rgba[0, :, 3:]
        seen = rasterize(known_object(), cameras[0], 256, pipeline.WHITE).rgb.permute(0, 3, 1, 2)
        wrong = float((views - seen).abs().mean())
        return [known_object() if wrong < 1e-3 else shrunk(0.5)]

    diffusion = KnownDiffusion()
    monkeypatch.setattr(mvdream_checkpoint, "load_mvdream", lambda folder, device: diffusion)
    monkeypatch.setattr(pipeline, "load_lgm", lambda path, device: Network())
    monkeypatch.setattr(pipeline, "reconstruct", reconstruct)
    return diffusion


@pytest.mark.parametrize("elevation", [0.0, 25.0, -15.0])
def test_a_known_object_comes_out_upright_and_facing_front(known, job, elevation):
    asset = pipeline.from_photo(look(known_object(), 0.0, elevation), PhotoOptions(elevation=elevation), job)
    assert torch.allclose(asset.gaussians.means, known_object().means, atol=1e-5)
    shown = job.pictures["views.png"]
    assert column(shown[:, :256], "yellow") < column(shown[:, :256], "red") < column(shown[:, :256], "green")


def test_a_pale_candidate_is_not_the_better_one(known, job, monkeypatch):
    """Of two sets of views the second hardly shows anything; both sets are missed alike, so the first, which is right, is kept.

    The pictures are compared, not the white around the object.
    """
    order = [(i - 1) % 4 for i in range(4)]
    right = torch.stack([white(look(known_object(), a)) for a in (0.0, 90.0, 180.0, 270.0)])
    small = shrunk(0.2)
    speck = torch.stack([white(look(small, a)) for a in (90.0, 180.0, 270.0, 0.0)])  # and out of order
    known.candidates = torch.stack([speck, (right + 0.25).clamp(0, 1)])[:, order]
    monkeypatch.setattr(
        pipeline,
        "reconstruct",
        lambda model, rgba, cameras, dtype=None: [small if float(rgba[:, :, :3].mean()) > 0.97 else known_object()],
    )
    pipeline.from_photo(look(known_object()), PhotoOptions(candidates=2), job)
    assert job.report["chosen_candidate"] == 1


def test_the_kept_candidate_has_its_own_number(diffusion, job, monkeypatch):
    """Candidate 0 shows no object; the report still names the one whose seed gave the result, and shows it on white."""

    def cut(view):
        if float(view.mean()) < 0.05:
            raise ForegroundError("nothing there")
        rgba = torch.zeros(*view.shape[:2], 4)
        rgba[50:200, 50:200] = torch.cat([view, torch.ones_like(view[..., :1])], dim=-1)[50:200, 50:200]
        return rgba

    monkeypatch.setattr(pipeline, "cutout", cut)
    pipeline.from_text("a mug", TextOptions(candidates=2), job)
    assert job.report["chosen_candidate"] == 1 and list(job.report["view_errors"]) == ["1"]
    shown = job.pictures["views.png"]
    assert shown[0, 0].tolist() == [1, 1, 1] and round(10 * float(shown[128, 128, 0])) == 2


def test_the_published_legacy_file_is_known_by_its_name(diffusion, weights, tmp_path):
    old = tmp_path / "model_fp16.safetensors"
    old.write_bytes(Path(weights["lgm-big"]).read_bytes())
    assert load_lgm(old).config.rotation == "legacy" and load_lgm(weights["lgm-big"]).config.rotation == "fixed"
    assert load_lgm(old, rotation="fixed").config.rotation == "fixed"
    job = Job(torch.device("cpu"), weights=weights | {"lgm-big": str(old)})
    pipeline.from_photo(photo(), PhotoOptions(), job)
    assert job.report["rotation"] == "legacy"


def test_wrong_and_broken_weights(diffusion, job, weights, tmp_path):
    from micro_l4gm import write_micro_l4gm

    l4gm = write_micro_l4gm(tmp_path)["l4gm-recon"]
    with pytest.raises(CheckpointError, match="L4GM"):
        pipeline.from_photo(photo(), PhotoOptions(), Job(job.device, weights=weights | {"lgm-big": str(l4gm)}))
    from bozzetto.zoo.load import bundled_path

    mini = bundled_path("lgm-mini.safetensors")
    with pytest.raises(CheckpointError, match="lgm-mini"):
        pipeline.from_photo(photo(), PhotoOptions(), Job(job.device, weights=weights | {"lgm-big": str(mini)}))


def test_nan_is_reported():
    network = LGM(MICRO).eval().requires_grad_(False)
    fill_seeded(network, 0)
    network.conv.bias[0] = float("nan")
    with pytest.raises(BozzettoError, match="NaN"):
        pipeline.reconstruct_views(network, torch.ones(4, 256, 256, 4))
