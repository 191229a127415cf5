"""Runs of several processes: parts of a batch, exact resume on another number of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
from straight_line import COMMAND, Line, config, rows, state

from bozzetto.errors import InputError
from bozzetto.training.checkpoint import list_checkpoints
from bozzetto.training.loop import PATIENCE, _distributed, _own_parts, train


def test_processes_wait_long_for_each_other(monkeypatch):
    given = {}
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *a, **k: given.update(k))
    monkeypatch.setenv("WORLD_SIZE", "2")
    _distributed("cpu")
    assert given["timeout"] == PATIENCE and PATIENCE.total_seconds() >= 3600


def _resume_apart(rank: int, folder: str, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with pytest.raises(InputError, match=r"different steps.*\(4, 0\)"):
        train(Line(), config(os.path.join(folder, str(rank)), steps=8), "cpu")
    torch.distributed.barrier()  # the first to leave would take the connection from the other
    torch.distributed.destroy_process_group()


def test_processes_with_different_checkpoints_are_refused(tmp_path):
    train(Line(), config(tmp_path / "0", steps=4), "cpu")
    path = list_checkpoints(tmp_path / "0")[-1]
    saved = state(tmp_path / "0")
    saved["description"]["identity"]["parts"] = 2
    torch.save(saved, path)
    torch.multiprocessing.spawn(_resume_apart, (str(tmp_path), free_port()), nprocs=2)


class Noisy(Line):
    """The batches of parts differ, and so does what they log."""

    def loss(self, model, batch, progress):
        error = ((model(batch) - 3 * batch) ** 2).mean()
        return error, {"mean_x": batch.mean()}


def _train_together(rank: int, folder: str, port: int, steps: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    train(Noisy(), config(folder, steps=steps, **STEADY), "cpu")


STEADY = {
    "parts": 2,
    "quiet": True,
    "warmup": 0,
    "final_lr": 0.05,
}  # the rate does not depend on how many steps are planned


@pytest.mark.parametrize("order", [pytest.param("12", marks=pytest.mark.slow), "21"])
def test_parts_make_the_same_run_on_one_and_two_processes(tmp_path, order, whole_in_parts):
    """One process resumes what two began and the other way round; the logged numbers are those of all parts."""
    for steps, processes in zip((8, 12), order):
        if processes == "2":
            torch.multiprocessing.spawn(_train_together, (str(tmp_path), free_port(), steps), nprocs=2)
        else:
            known = {"parts": None} if steps == 12 else {}  # the checkpoint says it
            train(Noisy(), config(tmp_path, steps=steps, **STEADY | known), "cpu")
    got, want = rows(tmp_path / "log.csv"), rows(whole_in_parts / "log.csv")
    for key in ("mean_x", "loss", "grad_norm"):
        assert [float(r[key]) for r in got] == pytest.approx([float(r[key]) for r in want], rel=1e-4), key
    assert torch.allclose(*(state(f)["model"]["weight"] for f in (tmp_path, whole_in_parts)), rtol=1e-5)


@pytest.fixture(scope="module")
def whole_in_parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    train(Noisy(), config(folder, **STEADY), "cpu")
    return folder


def test_parts_must_be_shared_out_evenly(tmp_path, monkeypatch):
    assert _own_parts(6, None, 1, 2) == (6, [1, 3, 5])
    assert _own_parts(None, 4, 0, 2) == (4, [0, 2]) and _own_parts(None, None, 1, 2) == (2, [1])
    with pytest.raises(InputError, match="2 parts of a batch cannot be shared out evenly among 4 processes"):
        _own_parts(None, 2, 0, 4)
    train(Line(), config(tmp_path, steps=4, parts=2), "cpu")
    with pytest.raises(InputError, match="parts was 2 and is now 1"):
        train(Line(), config(tmp_path, steps=8, parts=1), "cpu")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


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


def _step_together(rank: int, folder: str, port: int) -> None:
    from bozzetto.training.loop import make_optimizer
    from bozzetto.training.step import RecordedStep
    from bozzetto.training.update import Update

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    recipe = Noisy()
    torch.manual_seed(rank)  # all take the first one's weights
    model, averaged = recipe.build(), recipe.build()
    update = Update(model, averaged, make_optimizer(model, config("", lr=0.05)), 1.0)
    stream = recipe.batches(0, 0, rank, 2, None)
    first = next(stream)
    step = RecordedStep(recipe, model, update, None, first, world=2)
    for batch in (first, next(stream), next(stream)):
        step([batch], 0.05, 0.5, 0.0)
    torch.save([p.detach() for p in model.parameters()], os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_steps_on_static_tensors_exchange_their_gradients(tmp_path):
    from bozzetto.training.loop import make_optimizer
    from bozzetto.training.step import PlainStep
    from bozzetto.training.update import Update

    torch.multiprocessing.spawn(_step_together, (str(tmp_path), free_port()), nprocs=2)
    recipe = Noisy()
    torch.manual_seed(0)
    model, averaged = recipe.build(), recipe.build()
    update = Update(model, averaged, make_optimizer(model, config("", lr=0.05)), 1.0)
    streams = [recipe.batches(0, 0, part, 2, None) for part in range(2)]
    step = PlainStep(recipe, model, update, None, 2, 1)
    for _ in range(3):
        step([next(s) for s in streams], 0.05, 0.5, 0.0)
    for rank in range(2):
        for got, want in zip(torch.load(tmp_path / f"{rank}.pt"), model.parameters()):
            assert torch.allclose(got, want.detach(), rtol=1e-5)
