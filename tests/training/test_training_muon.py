"""Muon: orthogonal updates, exact resume, updates that are left out."""

from __future__ import annotations

import pytest
import torch
from straight_line import Line, config, same, state
from torch import nn

from bozzetto.errors import CheckpointError, InputError
from bozzetto.training.loop import TrainConfig, make_optimizer, train
from bozzetto.training.muon import Muon, as_rows, orthogonalised, orthogonalised_together, taken_together


@pytest.mark.parametrize("shape", [(64, 200), (200, 64), (3, 48, 48)])
def test_singular_values_come_near_one(shape):
    made = orthogonalised(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(made)
    assert made.shape == torch.Size(shape) and float(values.min()) > 0.5 and float(values.max()) < 1.3


def test_matrices_taken_together_are_those_taken_alone():
    g = torch.Generator().manual_seed(1)
    stacks = [torch.randn(shape, generator=g) for shape in ((3, 40, 90), (1, 90, 32), (2, 40, 40))]
    for alone, together in zip(map(orthogonalised, stacks), orthogonalised_together(stacks)):
        assert alone.shape == together.shape and torch.allclose(alone, together, atol=1e-5)


def test_only_similar_shapes_are_taken_together():
    shapes = [
        (14, 192, 1728),
        (5, 128, 1152),
        (7, 576, 192),
        (7, 192, 192),
        (3, 192, 3456),
        (1, 128, 2304),
        (1, 64, 64),
    ]
    groups = sorted(sorted(group) for group in taken_together(shapes))
    assert groups == [[0, 1], [2, 3, 6], [4, 5]]
    assert taken_together([]) == [] and taken_together([(2, 40, 40)]) == [[0]]


class Network(nn.Module):
    edge_layers = ("first", "last")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(8, 40, 3), nn.Conv2d(40, 40, 3)
        self.narrow, self.last = nn.Conv2d(40, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.last(self.narrow(torch.tanh(self.inner(torch.tanh(self.first(x))))))


def made(steps: int, poisoned: int | None = None):
    torch.manual_seed(0)
    model = Network().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, TrainConfig(out="", optimizer="muon", lr=0.01))
    x, y = torch.randn(16, 8, 5, 5), torch.randn(16, 3, 1, 1)
    losses = []
    for step in range(steps):
        loss = (model(x) - y).square().mean()
        loss.backward()
        bad = step == poisoned
        if bad:
            before, moments = [p.clone() for p in model.parameters()], [m.clone() for m in optimizer.moments()]
            for p in model.parameters():
                p.grad.fill_(float("nan"))
        optimizer.found_inf = torch.tensor(float(bad))
        optimizer.step()
        if bad:
            assert all(map(torch.equal, before, model.parameters()))
            assert all(map(torch.equal, moments, optimizer.moments()))
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return model, optimizer, losses


def test_it_learns_and_leaves_out_what_is_not_finite():
    _, optimizer, losses = made(40, poisoned=20)
    assert losses[-1] < 0.3 * losses[0]
    kinds = {g["kind"]: [tuple(p.shape) for p in g["params"]] for g in optimizer.param_groups if g["weight_decay"]}
    assert kinds == {"muon": [(40, 40, 3, 3)], "adamw": [(40, 8, 3, 3), (4, 40, 1, 1), (3, 4, 1, 1)]}


def test_the_inner_update_is_orthogonal_and_as_large_as_adamw_s():
    model, _, _ = made(0)
    optimizer = Muon(model, Network.edge_layers, lr=0.01, weight_decay=0.0)
    before = as_rows(model.inner.weight).detach().flatten(1).clone()
    model(torch.randn(4, 8, 5, 5)).square().mean().backward()
    optimizer.step()
    change = as_rows(model.inner.weight).detach().flatten(1) - before
    values = torch.linalg.svdvals(change) / (0.01 * 0.2 * 360**0.5)
    assert float(values.max()) < 1.3 and int((values > 0.5).sum()) == 4  # the gradient has rank 4


class Wide(Line):
    def build(self):
        return nn.Sequential(nn.Linear(1, 32), nn.Linear(32, 32), nn.Linear(32, 1))

    def evaluate(self, model, device):
        return {}


def test_resume_is_exact(tmp_path):
    train(Wide(), config(tmp_path / "whole", optimizer="muon"), "cpu")
    train(Wide(), config(tmp_path / "parts", optimizer="muon", checkpoint_every=1), "cpu")
    newest = sorted((tmp_path / "parts").glob("checkpoint-*.pt"))
    newest[-1].unlink()  # killed before the last one
    train(Wide(), config(tmp_path / "parts", optimizer="muon"), "cpu")
    assert same(state(tmp_path / "whole")["model"], state(tmp_path / "parts")["model"])
    assert same(state(tmp_path / "whole")["optimizer"], state(tmp_path / "parts")["optimizer"])
    with pytest.raises(InputError, match="optimizer was muon and is now adamw"):
        train(Wide(), config(tmp_path / "parts", steps=20), "cpu")


def test_moments_of_another_optimiser_are_refused():
    model, optimizer, _ = made(1)
    with pytest.raises(CheckpointError, match="not Muon's"):
        optimizer.load_state_dict(torch.optim.AdamW(model.parameters()).state_dict())
