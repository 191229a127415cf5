"""The training loop: exact resume, skipped bad batches, logs; and lgm-mini's recipe on it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from bozzetto.data.stream import ObjectStream
from bozzetto.errors import CheckpointError
from bozzetto.training.checkpoint import KEEP, list_checkpoints
from bozzetto.training.loop import TrainConfig, learning_rate, train


class Line:
    """Fits y = 3 x; a batch is a pure function of (seed, step, rank)."""

    def __init__(self, poison: int | None = None) -> None:
        self.poison = poison

    def build(self):
        return nn.Linear(1, 1)

    def batches(self, start, seed, rank, world, device):
        step = start
        while True:
            x = torch.rand(8, 1, generator=torch.Generator().manual_seed(seed * 7919 + step * 31 + rank))
            yield x * float("nan") if step == self.poison else x
            step += 1

    def loss(self, model, batch, progress):
        error = ((model(batch) - 3 * batch) ** 2).mean()
        return error, {"mse": error}

    def sample_picture(self, model, device):
        return torch.rand(4, 4, 3)

    def evaluate(self, model, device):
        return {"weight": float(model.weight)}

    def describe(self):
        return {"system": "line"}


def config(folder, **changes) -> TrainConfig:
    base = {"steps": 12, "lr": 0.05, "warmup": 3, "precision": "fp32", "checkpoint_every": 4, "log_every": 1}
    return TrainConfig(out=str(folder), **{**base, "sample_every": 0, **changes})


def state(folder):
    return torch.load(list_checkpoints(folder)[-1], weights_only=True)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_resumed_run_is_bit_identical(tmp_path):
    train(Line(), config(tmp_path / "whole"), "cpu")

    class Killed(Line):
        def loss(self, model, batch, progress):
            if progress >= 6 / 12:
                raise RuntimeError("killed")
            return super().loss(model, batch, progress)

    with pytest.raises(RuntimeError, match="killed"):
        train(Killed(), config(tmp_path / "resumed"), "cpu")
    assert list_checkpoints(tmp_path / "resumed")[-1].name == "checkpoint-00000004.pt"
    train(Line(), config(tmp_path / "resumed"), "cpu")
    assert same(state(tmp_path / "whole"), state(tmp_path / "resumed"))
    with (tmp_path / "resumed" / "log.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == list(range(1, 13))  # the rows after the last checkpoint were made again, not doubled


def test_learns_logs_and_prunes_checkpoints(tmp_path):
    numbers = train(Line(), config(tmp_path, steps=300, lr=0.1, checkpoint_every=50, sample_every=100), "cpu")
    assert abs(numbers["weight"] - 3) < 0.3
    assert len(list_checkpoints(tmp_path)) == KEEP
    assert (tmp_path / "samples" / "00000100.png").is_file() and (tmp_path / "run.json").is_file()
    assert not list(tmp_path.glob("*.tmp*"))


def test_a_batch_of_nan_is_skipped(tmp_path):
    train(Line(poison=5), config(tmp_path), "cpu")
    saved = state(tmp_path)
    assert bool(torch.isfinite(saved["model"]["weight"]).all())
    with (tmp_path / "log.csv").open() as file:
        assert [int(r["skipped"]) for r in csv.DictReader(file)][-1] == 1


def test_stops_after_its_time_and_goes_on(tmp_path):
    train(Line(), config(tmp_path, steps=10**6, max_minutes=0.02), "cpu")
    first = state(tmp_path)["step"]
    assert 0 < first < 10**6
    train(Line(), config(tmp_path, steps=first + 5), "cpu")
    assert state(tmp_path)["step"] == first + 5


def test_learning_rate_schedule():
    c = TrainConfig(out="", steps=100, lr=1.0, final_lr=0.0, warmup=10)
    rates = [learning_rate(c, s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[-1] < 0.01
    assert rates.index(max(rates)) in (9, 10) and rates[10:] == sorted(rates[10:], reverse=True)


def test_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "checkpoint-00000001.pt")
    with pytest.raises(CheckpointError, match="lacks"):
        train(Line(), config(tmp_path), "cpu")


def identity(seed: int) -> int:
    return seed


def test_stream_is_a_function_of_seed_step_and_rank():
    streams = [ObjectStream(identity, 4, seed=1, rank=r, world=2, block=8, repeats=2) for r in (0, 1)]
    seen = [[s.batch(step) for step in range(8)] for s in streams]
    flat = [[i for batch in rank for i in batch] for rank in seen]
    assert not set(flat[0]) & set(flat[1])  # ranks share no object
    assert sorted(flat[0]) == sorted(list(range(8)) * 2 + list(range(16, 24)) * 2)
    late = ObjectStream(identity, 4, seed=1, rank=1, world=2, block=8, repeats=2)
    assert late.batch(6) == seen[1][6]
    assert ObjectStream(identity, 4, seed=2, block=8).batch(0) != seen[0][0]


def test_stream_with_workers_gives_the_same():
    inline = ObjectStream(identity, 2, seed=5, block=4, repeats=1)
    parallel = ObjectStream(identity, 2, seed=5, block=4, repeats=1, workers=1)
    try:
        assert [parallel.batch(s) for s in range(4)] == [inline.batch(s) for s in range(4)]
    finally:
        parallel.close()


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


@pytest.mark.slow
def test_lgm_mini_survives_kill_9(tmp_path):
    """A run killed without warning and started again ends where an undisturbed one does."""
    steps = ("--steps", "6", "--checkpoint-every", "2")
    whole = run_cli(tmp_path / "whole", *steps)
    out, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    assert "evaluation" in out
    killed = run_cli(tmp_path / "killed", *steps)
    deadline = time.time() + 200
    while not list_checkpoints(tmp_path / "killed") and time.time() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = run_cli(tmp_path / "killed", *steps)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert same(state(tmp_path / "whole")["model"], state(tmp_path / "killed")["model"])


@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    """torchrun on two CPU processes (gloo): both see other objects, one writes, and the weights stay equal."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bozzetto"]
    done = subprocess.run(
        [*command, *COMMAND, "-o", str(tmp_path / "run"), "--steps", "3"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert state(tmp_path / "run")["step"] == 3
