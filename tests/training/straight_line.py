"""The smallest recipe there is, for tests of the loop, and what they look at a run's folder with."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import torch
from torch import nn

from bozzetto.training.checkpoint import list_checkpoints
from bozzetto.training.loop import TrainConfig


class Line:
    """Fits y = 3 x; a batch is a pure function of (seed, step, rank)."""

    def __init__(self, poison: int | None = None, batch: int = 8, terms: tuple[str, ...] = ("mse",)) -> None:
        self.poison, self.batch, self.terms, self.evaluations = poison, batch, terms, 0

    def build(self):
        return nn.Linear(1, 1)

    def batches(self, start, seed, rank, world, device):
        step = start
        while True:
            x = torch.rand(self.batch, 1, generator=torch.Generator().manual_seed(seed * 7919 + step * 31 + rank))
            yield x * float("nan") if step == self.poison else x
            step += 1

    def loss(self, model, batch, progress):
        error = ((model(batch) - 3 * batch) ** 2).mean()
        return error, dict.fromkeys(self.terms, error)

    def sample_picture(self, model, device):
        return torch.rand(4, 4, 3)

    def evaluate(self, model, device):
        self.evaluations += 1
        return {"weight": float(model.weight.detach())}

    def describe(self):
        return {"system": "line"}

    def identity(self):
        return {"batch": self.batch}


def config(folder, **changes) -> TrainConfig:
    base = {"steps": 12, "lr": 0.05, "warmup": 3, "precision": "fp32", "checkpoint_every": 4, "log_every": 1}
    return TrainConfig(out=str(folder), **{**base, "sample_every": 0, **changes})


def state(folder):
    return torch.load(list_checkpoints(folder)[-1], weights_only=True)


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


COMMAND = ["train", "lgm-mini", "--preset", "debug", "--batch", "2", "--block", "2", "--device", "cpu"]
COMMAND += ["--precision", "fp32", "--sample-every", "0", "--eval-objects", "1", "--log-every", "1"]


def run_cli(folder, *extra, **kwargs):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bozzetto", *COMMAND, "-o", str(folder), *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **kwargs,
    )
