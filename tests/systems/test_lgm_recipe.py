"""lgm-mini's recipe: what a batch holds, that true depth gives the true object, and that the loss can be descended."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bozzetto.app.cli import main
from bozzetto.data.assets.convert import convert
from bozzetto.data.render.surroundings import save_light
from bozzetto.errors import InputError
from bozzetto.raster import rasterize
from bozzetto.systems.lgm.cameras import SLOTS
from bozzetto.systems.lgm.drawn import draw_from
from bozzetto.systems.lgm.evaluation import NOVEL_AZIMUTHS, evaluate_procedural, on_white, psnr
from bozzetto.systems.lgm.heads import DEPTH_RANGE, ray_head
from bozzetto.systems.lgm.objective import Objective, depth_error
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.recipe import MiniRecipe
from bozzetto.training.checkpoint import latest_checkpoint
from bozzetto.training.loop import TrainConfig, train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data_room"))
from asset_shapes import arm, ball, ball_object

CPU = torch.device("cpu")


def first_batches(recipe: MiniRecipe, count: int, start: int = 0) -> list[dict]:
    batches = recipe.batches(start, seed=0, rank=0, world=1, device=CPU)
    out = [next(batches) for _ in range(count)]
    batches.close()
    return out


@pytest.fixture(scope="module")
def recipe() -> MiniRecipe:
    return MiniRecipe(preset="debug", batch_size=3, novel_views=3, render_size=32, block=6)


def test_batches_are_a_function_of_the_step(recipe):
    a, b = first_batches(recipe, 3)[2], first_batches(recipe, 1, start=2)[0]
    for key in ("rgba", "target", "depth", "known"):
        assert torch.equal(a[key], b[key]), key
    assert a["rgba"].shape == (3, SLOTS, 4, 32, 32) and a["target"].shape == (3, SLOTS + 3, 4, 32, 32)
    assert float(a["rgba"][:, :, 3].mean()) > 0.05


def test_scenes_are_lit_by_the_given_surroundings(tmp_path):
    red = torch.zeros(9, 3)
    red[0] = torch.tensor([3.0, 0.1, 0.1])
    save_light(tmp_path / "red.json", {"red": red})
    values = {"preset": "debug", "batch_size": 6, "novel_views": 1, "render_size": 32, "block": 6, "environment": 1.0}
    ours = first_batches(MiniRecipe(**values), 1)[0]
    red = first_batches(MiniRecipe(**values, photographed=str(tmp_path / "red.json")), 1)[0]
    assert torch.equal(ours["depth"], red["depth"]) and not torch.equal(ours["rgba"], red["rgba"])
    inside = red["rgba"][:, :, 3] > 0.9
    colour = [(red["rgba"][b, :, :3].movedim(1, -1)[inside[b]]).mean(0) for b in range(6)]
    assert sum(float(c[0] > 3 * c[1]) for c in colour) >= 1  # about half of the scenes stand in the red room


def true_raw(batch: dict, size: int) -> torch.Tensor:
    """Raw channels that put every slot's pixel at its true depth, opaque where the object is."""
    slots, step = batch["slots"], batch["depth"].shape[-1] // size
    depth, alpha = batch["depth"][..., ::step, ::step], batch["rgba"][:, :, 3, ::step, ::step]
    if step > 1:
        depth = batch["depth"][..., step // 2 :: step, step // 2 :: step]
        alpha = batch["rgba"][:, :, 3, step // 2 :: step, step // 2 :: step]
    _, directions = slots.rays(size)
    forward = -slots.camera_to_world[..., None, None, :3, 2]
    distance = depth / (directions * forward).sum(-1)
    centre = slots.positions.norm(dim=-1)[..., None, None]
    raw = torch.zeros(*alpha.shape[:2], 14, size, size)
    raw[:, :, 0] = torch.atanh(((distance - centre) / DEPTH_RANGE).clamp(-0.999, 0.999))
    raw[:, :, 3] = 6 * (2 * alpha - 1)
    return raw


def test_true_depth_gives_the_true_object_from_new_sides():
    """Cameras, rays, renderer, head and rasterizer agree on one geometry: any flip or offset among them fails this."""
    recipe = MiniRecipe(preset="mini", batch_size=2, novel_views=4, block=2, render_size=128)
    batch = first_batches(recipe, 1)[0]
    batch["known"] = torch.ones(2, SLOTS)
    raw = true_raw(batch, 128)
    assert float(depth_error(raw, batch)) < 2e-3
    gaussians = ray_head(raw, batch["slots"], batch["rgba"], batch["known"])
    goal = on_white(batch["target"].permute(0, 1, 3, 4, 2))
    drawn = rasterize(gaussians, batch["cameras"], 128, (1.0, 1.0, 1.0)).rgb
    truth = psnr(((drawn - goal) ** 2).mean((-1, -2, -3)))[:, SLOTS:].mean()
    white = psnr(((1 - goal) ** 2).mean((-1, -2, -3)))[:, SLOTS:].mean()
    mirrored = psnr(((drawn.flip(3) - goal) ** 2).mean((-1, -2, -3)))[:, SLOTS:].mean()
    assert truth > white + 4 and truth > mirrored + 3


def test_loss_descends_on_one_batch(recipe):
    torch.manual_seed(0)
    model, batch = recipe.build(), first_batches(recipe, 1)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss, parts = recipe.loss(model, batch, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]
    assert {"mse", "alpha", "ssim", "depth", "psnr"} <= parts.keys()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_augmentations_touch_inputs_only(recipe):
    plain = first_batches(recipe, 1)[0]
    changed = MiniRecipe(**{**vars_of(recipe), "distortion_probability": 1.0, "jitter_probability": 1.0})
    batch = first_batches(changed, 1)[0]
    assert torch.equal(batch["target"], plain["target"]) and torch.equal(batch["rgba"], plain["rgba"])
    assert torch.equal(batch["input_rgba"][:, 0], plain["rgba"][:, 0])  # never the first view
    assert not torch.equal(batch["input_rgba"][:, 1:], plain["rgba"][:, 1:])
    moved = (batch["input_slots"].camera_to_world - plain["slots"].camera_to_world).abs().amax((0, 2, 3))
    assert float(moved[0]) == 0 and float(moved[1:].min()) > 1e-3


def vars_of(recipe: MiniRecipe) -> dict:
    return {k: v for k, v in recipe.describe().items() if k not in ("system", "objects", "shares")}


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """A dataset folder with an animated object, one in plain colours and one with a picture."""
    out = tmp_path_factory.mktemp("assets")
    plain = ball_object(name="plain", group="plain", parts=[ball(radius=2, texture=None)], textures=[])
    convert("zeroad", [replace(o, source="zeroad") for o in (ball_object(), arm(), plain)], out)
    return str(out)


def mixed(assets, **changes) -> MiniRecipe:
    values = {"preset": "debug", "batch_size": 4, "novel_views": 2, "render_size": 32, "block": 4, "data": (assets,)}
    return MiniRecipe(**(values | {"mix": "procedural=0.25", "environment": 0.5} | changes))


def test_batches_of_a_dataset_are_a_function_of_step_and_part(assets):
    recipe = mixed(assets)
    a, b = first_batches(recipe, 3), first_batches(mixed(assets), 1, start=2)[0]
    assert set(a[2]) == set(b) and all(torch.equal(a[2][k], b[k]) for k in ("rgba", "target", "depth", "known"))
    assert all(bool(x["rgba"][:, :, 3].flatten(1).mean(1).gt(0.01).all()) for x in a)
    other = recipe.batches(2, seed=0, rank=1, world=2, device=CPU)
    assert not torch.equal(next(other)["rgba"], b["rgba"])
    other.close()
    assert recipe.describe()["shares"] == pytest.approx({"procedural": 0.25, "zeroad": 0.75})


def test_true_depth_gives_the_true_object_of_a_dataset(assets):
    recipe = mixed(assets, preset="mini", batch_size=3, novel_views=4, render_size=128, mix="procedural=0")
    batch = first_batches(recipe, 1)[0]
    batch["known"] = torch.ones(3, SLOTS)
    raw = true_raw(batch, 128)
    assert float(depth_error(raw, batch)) < 2e-3
    gaussians = ray_head(raw, batch["slots"], batch["rgba"], batch["known"])
    goal = on_white(batch["target"].permute(0, 1, 3, 4, 2))
    drawn = rasterize(gaussians, batch["cameras"], 128, (1.0, 1.0, 1.0)).rgb
    truth, white = (psnr(((x - goal) ** 2).mean((-1, -2, -3)))[:, SLOTS:].mean() for x in (drawn, torch.ones(())))
    assert truth > white + 4


def test_overfitting_sees_the_same_objects_at_rest(assets):
    recipe = mixed(assets, batch_size=2, overfit=2, mix="procedural=0")
    library = recipe.library(CPU)
    known, generator = torch.ones(2, SLOTS), torch.Generator().manual_seed(0)
    drawn = [draw_from(recipe._mixture, library, known, [0, k, p], generator, 2, 1.0) for k in (0, 1) for p in (0, 1)]
    assert all(d.poses == drawn[0].poses for d in drawn) and all(p.clip is None for p in drawn[0].poses)
    assert all(bool((d.tints == 1).all()) for d in drawn)


def test_other_data_or_shares_cannot_be_resumed(assets, tmp_path):
    whole = mixed(assets).identity()
    assert mixed(assets, mix="procedural=0.5").identity() != whole and mixed(assets).identity() == whole
    assert "data" not in MiniRecipe(preset="debug").identity()


def test_a_resumed_run_on_a_dataset_is_bit_identical(assets, tmp_path):
    def run(folder: str, steps: int) -> dict:
        recipe = mixed(assets, batch_size=2, evaluation_objects=1, mix="procedural=0.5", depth_weight=0.0)  # it fades
        settings = {"precision": "fp32", "sample_every": 0, "checkpoint_every": 2, "quiet": True, "warmup": 1}
        train(recipe, TrainConfig(str(tmp_path / folder), steps=steps, lr=1e-3, final_lr=1e-3, **settings), "cpu")
        return torch.load(latest_checkpoint(tmp_path / folder), weights_only=True)["model"]

    whole = run("whole", 4)
    run("halves", 2)
    halves = run("halves", 4)
    assert all(torch.equal(whole[k], halves[k]) for k in whole)
    with pytest.raises(InputError, match="mix was"):
        recipe = mixed(assets, batch_size=2, mix="procedural=0.1")
        train(recipe, TrainConfig(str(tmp_path / "whole"), steps=5, quiet=True), "cpu")


def test_command_trains_on_a_dataset(assets, tmp_path):
    run = ["train", "lgm-mini", "-o", str(tmp_path / "run"), "--preset", "debug-tokens", "--steps", "2", "--batch", "2"]
    run += ["--device", "cpu", "--block", "2", "--eval-objects", "1", "--sample-every", "0", "--data", assets]
    run += ["--mix", "procedural=0", "--surroundings", "1", "--overfit", "2", "-q"]
    assert main([*run, "--export", str(tmp_path / "m.safetensors")]) == 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert about["overfit"] == 2 and about["shares"] == {"procedural": 0.0, "zeroad": 1.0}
    assert (tmp_path / "m.safetensors").stat().st_size > 1e5
    licences = ["--data", assets, "--licences"]
    for wrong in (
        ["--data", str(tmp_path)],
        ["--data", assets, "--mix", "nothing=1"],
        ["--mix", "zeroad=1"],
        ["--licences", "clean"],
        [*licences, "MIT"],
        ["--surroundings-from", "light.json"],
    ):
        assert main(["train", "lgm-mini", "-o", str(tmp_path / "no"), "--device", "cpu", *wrong]) != 0


def test_a_fifth_slot_is_imagined_from_above_and_all_of_the_network_learns():
    recipe = MiniRecipe(preset="debug-sweep", batch_size=2, novel_views=2, render_size=32, block=2)
    recipe.config = replace(recipe.config, slots=5)
    torch.manual_seed(0)
    model, batch = recipe.build(), first_batches(recipe, 1)[0]
    assert batch["known"].shape == (2, 5) and not batch["known"][:, 4].any() and batch["target"].shape[1] == 7
    upwards = batch["slots"].positions[:, 4]
    assert float((upwards[:, 1] / upwards.norm(dim=-1)).min()) > 0.99
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = recipe.loss(model, batch, 0.5)
    loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent and torch.isfinite(loss) and {"psnr_known", "psnr_unseen"} <= set(parts)


@pytest.mark.parametrize("trunk", ["debug", "debug-tokens", "debug-detail", "debug-cascade"])
def test_trunks_learn_and_are_recognised(trunk, tmp_path):
    from bozzetto.systems.lgm.checkpoint import load_lgm, save_lgm

    recipe = MiniRecipe(preset=trunk, batch_size=2, novel_views=2, render_size=32, block=2)
    torch.manual_seed(0)
    model, batch = recipe.build(), first_batches(recipe, 1)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss, _ = recipe.loss(model, batch, 0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]
    save_lgm(model, tmp_path / "m.safetensors", dtype=torch.float32)
    again = load_lgm(tmp_path / "m.safetensors")
    assert again.config == preset(trunk)
    inputs = recipe.model_inputs(batch)
    with torch.no_grad():
        assert torch.allclose(again(*inputs), model(*inputs), atol=1e-5)


def test_evaluation_reports_and_draws(recipe):
    torch.manual_seed(0)
    result = evaluate_procedural(recipe.build().eval(), CPU, objects=2, batch=2, sheet_rows=1)
    assert {"novel_4view", "novel_1view", "novel_white", "novel_4view_foreground"} <= result.numbers.keys()
    assert len(result.per_object["novel_4view"]) == 2 and len(NOVEL_AZIMUTHS) == 8
    assert result.sheet.shape[1] == 13 * preset("debug").input_size // 2


def test_the_silhouette_s_price_falls_when_haze_turns_full_or_empty(recipe):
    """Of two equal squared errors in alpha the absolute error is the smaller for what commits itself."""
    batch = first_batches(recipe, 1)[0]
    target = batch["target"]
    wrong = torch.rand(target[:, :, 3].shape, generator=torch.Generator().manual_seed(0)) < 0.25
    haze, sure = (target[:, :, 3] - 0.5).abs(), torch.where(wrong, 1 - target[:, :, 3], target[:, :, 3])
    raw = torch.zeros(3, SLOTS, 14, 32, 32)
    gaussians = ray_head(raw, batch["slots"], batch["rgba"], batch["known"])

    def parts(alpha: torch.Tensor) -> dict:
        drawn = rasterize(gaussians, batch["cameras"], 32)
        drawn = replace(drawn, alpha=alpha)
        return Objective(silhouette=0.5)(raw, gaussians, drawn, batch, 1.0)[1]

    edges = (haze - 0.5).abs() < 1e-6  # haze: 0.5 wherever alpha is 0 or 1
    assert float(edges.float().mean()) > 0.5
    foggy, bold = parts(torch.full_like(haze, 0.5)), parts(sure)
    assert float(bold["silhouette"]) < 0.6 * float(foggy["silhouette"])
    assert float((bold["alpha"] - foggy["alpha"]).abs()) < 0.05


def test_prices_on_haze_can_be_for_single_photos_alone(recipe):
    batch = first_batches(recipe, 1)[0]
    raw = torch.zeros(3, SLOTS, 14, 32, 32)

    def price(known: torch.Tensor, several: float) -> float:
        batch["known"] = known
        gaussians = ray_head(raw, batch["slots"], batch["rgba"], known)
        drawn = rasterize(gaussians, batch["cameras"], 32)
        with_it, without = (
            Objective(silhouette=s, opacity=s, several=several)(raw, gaussians, drawn, batch, 1.0)[0]
            for s in (0.5, 0.0)
        )
        return float(with_it - without)

    one = torch.tensor([[1.0, 0, 0, 0]] * 3)
    four, mixed = torch.ones(3, 4), torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert price(one, 0.0) == pytest.approx(price(one, 1.0), rel=1e-5) and price(one, 0.0) > 0.01
    assert price(four, 0.0) == pytest.approx(0.0, abs=1e-6) and price(four, 0.5) > 0.005
    assert 0 < price(mixed, 0.0) < price(mixed, 0.5) < price(mixed, 1.0)
