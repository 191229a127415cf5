"""A step on static tensors, and a recorded one, train as one that is launched call by call."""

from __future__ import annotations

import copy

import pytest
import torch
from straight_line import Line, config, rows, same, state
from torch import nn

from bozzetto.camera import Cameras
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.training.loop import TrainConfig, make_optimizer, train
from bozzetto.training.static import FlatGradients, StaticBatch, tensors_in
from bozzetto.training.step import PlainStep, RecordedStep
from bozzetto.training.update import Update


class Deep(Line):
    """Layers that Muon takes, and a loss whose weights change over the run."""

    def build(self):
        return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def batches(self, start, seed, rank, world, device):
        return (batch.to(device) for batch in super().batches(start, seed, rank, world, device))

    def loss(self, model, batch, progress):
        total, parts = super().loss(model, batch, progress)
        return total * (1 + progress), {**parts, "psnr": -10 * torch.log10(total.detach())}

    def evaluate(self, model, device):
        return {}

    def model_inputs(self, batch):
        return (batch,)


def prepared(optimizer: str, device: str = "cpu"):
    torch.manual_seed(0)
    recipe = Deep()
    model = recipe.build().to(device)
    averaged = copy.deepcopy(model).requires_grad_(False)
    made = make_optimizer(model, TrainConfig(out="", optimizer=optimizer, lr=0.01))
    return recipe, model, averaged, Update(model, averaged, made, 1e6)


def batches_of(count: int, device: str = "cpu", poison: int | None = None) -> list[torch.Tensor]:
    stream = Line(poison=poison).batches(0, 0, 0, 1, None)
    return [next(stream).to(device) for _ in range(count)]


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_static_tensors_change_nothing(optimizer):
    batches, told, ends = batches_of(6, poison=3), [], []
    for static in (False, True):
        recipe, model, averaged, update = prepared(optimizer)
        start = weights(model)
        step = (
            RecordedStep(recipe, model, update, None, batches[0])
            if static
            else PlainStep(recipe, model, update, None, 1, 1)
        )
        assert getattr(step, "recorded", []) == [] and torch.equal(weights(model), start)
        rows = []
        for i, batch in enumerate(batches):
            (numbers,), norm = step([batch], 0.01 / (i + 1), 0.5, i / 6)
            rows.append([float(numbers["loss"].detach()), float(numbers["psnr"]), float(norm)])
        told.append(torch.tensor(rows))
        ends.append((weights(model), weights(averaged), float(update.skipped), start))
    assert torch.allclose(*told, rtol=1e-4, equal_nan=True)
    (a, average_a, skipped_a, start), (b, average_b, skipped_b, _) = ends
    assert skipped_a == skipped_b == 1
    way = float((a - start).norm())
    assert float((a - b).norm()) < 1e-3 * way and float((average_a - average_b).norm()) < 1e-3 * way


def test_gradients_lie_in_one_vector_as_the_parameters_lie_in_memory():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1)).to(memory_format=torch.channels_last)
    flat = FlatGradients(list(layers.parameters()))
    for p in layers.parameters():
        assert p.grad.stride() == p.stride() and p.grad.untyped_storage().data_ptr() == flat.vector.data_ptr()
    loss = layers(torch.rand(2, 3, 6, 6)).square().mean()
    wanted = torch.autograd.grad(loss, list(layers.parameters()))
    flat.take(wanted)
    assert all(torch.equal(p.grad, g) for p, g in zip(layers.parameters(), wanted))
    assert float(flat.vector.norm()) == pytest.approx(float(torch.cat([g.flatten() for g in wanted]).norm()))
    flat.vector.fill_(float("nan"))
    flat.take([None, *wanted[1:]])
    assert (
        bool(torch.isfinite(flat.vector).all())
        and not layers[0].weight.grad.any()
        and torch.equal(layers[1].bias.grad, wanted[3])
    )


def test_a_static_batch_takes_the_values_of_others():
    def batch(seed: int):
        generator = torch.Generator().manual_seed(seed)
        cameras = Cameras(torch.rand(2, 4, 4, generator=generator), torch.rand(4, generator=generator))
        return {"cameras": cameras, "pair": (torch.rand(3, generator=generator), "name"), "count": 4}

    static, other = StaticBatch(batch(0)), batch(1)
    places = [t.data_ptr() for t in tensors_in(static.value)]
    static.take(other)
    assert [t.data_ptr() for t in tensors_in(static.value)] == places and static.value["pair"][1] == "name"
    assert all(map(torch.equal, tensors_in(static.value), tensors_in(other)))
    with pytest.raises(ValueError, match="shapes"):
        static.take({**other, "pair": (torch.rand(4), "name")})


class Pictures:
    """A network with all kinds of layers, in bfloat16."""

    def loss(self, model, batch, progress):
        return model(batch).float().square().mean(), {}


@pytest.mark.parametrize("name", ["debug", "debug-tokens"])
def test_weights_that_are_cast_all_at_once_give_the_gradients_of_autocast(name):
    torch.manual_seed(0)
    model, device = LGM(preset(name)), "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device, memory_format=torch.channels_last)
    batch = torch.rand(1, 4, 11, 32, 32, device=device)
    with torch.autocast(device, torch.bfloat16):
        loss = Pictures().loss(model, batch, 0.0)[0]
    wanted = torch.autograd.grad(loss, list(model.parameters()))
    names = dict(model.named_parameters())
    update = Update(model, copy.deepcopy(model), make_optimizer(model, TrainConfig(out="")), 1.0)
    step = RecordedStep(Pictures(), model, update, torch.bfloat16, batch, record=False)
    step._passes()
    assert float(step.numbers["loss"]) == pytest.approx(float(loss.detach()), rel=2e-3 if device == "cuda" else 1e-6)
    for got, want in zip(step.gradients.views, wanted):
        error = float((got - want).norm() / want.norm().clamp_min(1e-6))
        assert error < (3e-2 if device == "cuda" else 1e-6)  # on CUDA sums of weights are rounded, too
    assert all(names[n] is p for n, p in model.named_parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_recorded_step_trains_like_an_eager_one(optimizer):
    batches, ends = batches_of(6, "cuda", poison=3), []
    for record in (False, True):
        recipe, model, averaged, update = prepared(optimizer, "cuda")
        start = weights(model)
        step = RecordedStep(recipe, model, update, None, batches[0], record=record)
        assert torch.equal(weights(model), start)
        assert step.recorded == (["loss and gradients", "update"] if record else []), step.reasons
        losses = [step([b], 0.01 / (i + 1), 0.5, i / 6)[0][0]["loss"].item() for i, b in enumerate(batches)]
        ends.append((torch.tensor(losses), weights(model), weights(averaged), float(update.skipped)))
        assert all(isinstance(g["lr"], float) for g in update.optimizer.param_groups)
    (losses_a, a, average_a, skipped_a), (losses_b, b, average_b, skipped_b) = ends
    assert torch.allclose(losses_a, losses_b, rtol=1e-3, equal_nan=True) and skipped_a == skipped_b == 1
    way = float((a - start).norm())
    assert float((a - b).norm()) < 1e-2 * way and float((average_a - average_b).norm()) < 1e-2 * way


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_run_resumes(tmp_path):
    class Steady(Deep):  # a shorter run's progress is another one's
        def loss(self, model, batch, progress):
            return super().loss(model, batch, 0.0)

    settings = {"optimizer": "muon", "quiet": True, "final_lr": 0.05, "warmup": 0}
    train(Steady(), config(tmp_path / "whole", **settings), "cuda")
    train(Steady(), config(tmp_path / "parts", steps=8, **settings), "cuda")
    train(Steady(), config(tmp_path / "parts", **settings), "cuda")
    first, second = (rows(tmp_path / name / "log.csv") for name in ("whole", "parts"))
    assert [float(r["loss"]) for r in second] == pytest.approx([float(r["loss"]) for r in first], rel=1e-2)
    assert same(*(state(tmp_path / name)["optimizer"]["param_groups"] for name in ("whole", "parts")))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_cannot_be_recorded_is_launched_by_the_host():
    class Waits(Deep):
        def loss(self, model, batch, progress):
            total, parts = super().loss(model, batch, progress)
            return total * (1 if float(total) > 0 else 2), parts

    _, model, _, update = prepared("adamw", "cuda")
    batches = batches_of(2, "cuda")
    step = RecordedStep(Waits(), model, update, None, batches[0])
    assert "loss and gradients" not in step.recorded and step.recorded[-1] == "update" and step.reasons
    torch.manual_seed(3)
    drawn = torch.rand(4, device="cuda")  # a failed recording leaves the generator usable, in the state of before
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4, device="cuda"))
    before = weights(model)
    losses = [float(step([b], 0.01, 0.5, 0.0)[0][0]["loss"]) for b in batches]
    assert all(x > 0 for x in losses) and not torch.equal(before, weights(model))
