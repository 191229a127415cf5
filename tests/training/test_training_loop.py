"""The training loop: exact resume, skipped bad batches, logs; and lgm-mini's recipe on it."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from bozzetto.app.cli import main
from bozzetto.data.stream import ObjectStream
from bozzetto.errors import CheckpointError, InputError
from bozzetto.systems.lgm.recipe import MiniRecipe, make_packed_object
from bozzetto.training.checkpoint import KEEP, list_checkpoints
from bozzetto.training.log import RunLog
from bozzetto.training.loop import PATIENCE, TrainConfig, _distributed, _own_parts, learning_rate, train


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


def test_resume_with_other_loss_terms_keeps_one_table(tmp_path):
    train(Line(terms=("mse", "ssim")), config(tmp_path, steps=4), "cpu")
    train(Line(terms=("mse", "depth")), config(tmp_path, steps=8), "cpu")
    train(Line(terms=("mse", "depth")), config(tmp_path, steps=12), "cpu")
    table = rows(tmp_path / "log.csv")
    assert [int(r["step"]) for r in table] == list(range(1, 13))
    assert all(None not in r and None not in r.values() for r in table)
    assert all(bool(r["ssim"]) == (i < 4) and bool(r["depth"]) == (i >= 4) for i, r in enumerate(table))
    assert all(r["lr"] and float(r["mse"]) == float(r["loss"]) for r in table)


@pytest.mark.parametrize(
    "torn", ["ste", "3", "3,0.5", "3,0.5,0.5,0.5,0.0", "x,1,1,1,1,1,1\n", "\0\0\0", "²,1,1,1,1,1,1\n"]
)
def test_torn_last_line_is_dropped(tmp_path, torn):
    train(Line(), config(tmp_path, steps=4), "cpu")
    for name in ("log.csv", "evaluation.csv"):
        with (tmp_path / name).open("a", newline="", encoding="utf-8") as file:
            file.write(torn)
    train(Line(), config(tmp_path, steps=8), "cpu")
    assert [r["step"] for r in rows(tmp_path / "log.csv")] == [str(i) for i in range(1, 9)]
    assert [r["step"] for r in rows(tmp_path / "evaluation.csv")] == ["4", "8"]


def test_a_last_number_cut_short_is_dropped(tmp_path):
    log = RunLog(tmp_path, echo=False)
    for step in (1, 2):
        log.write(step, {"loss": 0.5})
    log.close()
    path = tmp_path / "log.csv"
    path.write_bytes(path.read_bytes()[:-4])
    RunLog(tmp_path, start=2).close()
    assert [r["step"] for r in rows(path)] == ["1"]


def test_header_without_rows_is_forgotten(tmp_path):
    (tmp_path / "log.csv").write_text("step,old\n9,1\nste")
    (tmp_path / "evaluation.csv").write_text("ste")
    log = RunLog(tmp_path, echo=False)
    log.write(1, {"loss": 0.5})
    log.evaluation(1, {"psnr": 20.0})
    log.close()
    assert list(rows(tmp_path / "log.csv")[0]) == ["step", "loss", "steps_per_second"]
    assert rows(tmp_path / "evaluation.csv") == [{"step": "1", "psnr": "20"}]


@pytest.mark.parametrize(
    ("recipe", "changes", "named"), [(Line(batch=4), {}, "batch was 8"), (Line(), {"seed": 1}, "seed")]
)
def test_resuming_with_another_stream_is_refused(tmp_path, recipe, changes, named):
    train(Line(), config(tmp_path, steps=4), "cpu")
    before = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(InputError, match=named):
        train(recipe, config(tmp_path, **changes), "cpu")
    assert (tmp_path / "log.csv").read_bytes() == before


def test_settings_of_the_optimiser_may_change_on_resume(tmp_path):
    train(Line(), config(tmp_path, steps=4), "cpu")
    train(Line(), config(tmp_path, steps=8, lr=0.01, weight_decay=0.5, betas=(0.8, 0.9)), "cpu")
    decay, plain = state(tmp_path)["optimizer"]["param_groups"]
    assert decay["weight_decay"] == 0.5 and plain["weight_decay"] == 0
    assert tuple(decay["betas"]) == (0.8, 0.9) and decay["lr"] <= 0.01
    assert float(state(tmp_path)["optimizer"]["state"][0]["step"]) == 8


def test_a_finished_run_is_not_evaluated_again(tmp_path):
    recipe = Line()
    first = train(recipe, config(tmp_path, steps=4), "cpu")
    written = list_checkpoints(tmp_path)[-1].stat().st_mtime_ns
    again = train(recipe, config(tmp_path, steps=4), "cpu")
    assert recipe.evaluations == 1 and len(rows(tmp_path / "evaluation.csv")) == 1
    assert again == {k: pytest.approx(v, rel=1e-5) for k, v in first.items()}
    assert list_checkpoints(tmp_path)[-1].stat().st_mtime_ns == written
    (tmp_path / "evaluation.csv").unlink()  # killed between its checkpoint and its evaluation
    train(recipe, config(tmp_path, steps=4), "cpu")
    assert recipe.evaluations == 2 and len(rows(tmp_path / "evaluation.csv")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_after_the_step_in_which_it_is_asked(tmp_path, number):
    class Interrupted(Line):
        def loss(self, model, batch, progress):
            if progress == 3 / 100:
                signal.raise_signal(number)
            return super().loss(model, batch, progress)

    train(Interrupted(), config(tmp_path, steps=100), "cpu")
    assert state(tmp_path)["step"] == 4


def test_quiet_prints_nothing(tmp_path, capsys):
    train(Line(), config(tmp_path / "a", quiet=True), "cpu")
    assert capsys.readouterr() == ("", "")
    train(Line(), config(tmp_path / "b"), "cpu")
    assert "evaluation" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [{"lr": float("nan")}, {"lr": -1.0}, {"lr": 0.0}, {"seed": -1}, {"steps": 0}, {"log_every": 0}]
    + [{"max_minutes": float("nan")}, {"weight_decay": -1.0}, {"precision": "fp8"}],
)
def test_impossible_settings_are_refused(tmp_path, changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        train(Line(), config(tmp_path / "run", **changes), "cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option",
    [("--seed", "-1"), ("--lr", "nan"), ("--lr", "-1"), ("--lr", "0"), ("--first-seed", "1000000000")]
    + [("--first-seed", "-1"), ("--workers", "-1"), ("--distort", "2"), ("--ssim", "inf"), ("--max-minutes", "0")],
)
def test_command_refuses_impossible_options(tmp_path, capsys, option):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "lgm-mini", "-o", str(tmp_path / "run"), *option])
    assert stopped.value.code == 2 and option[0] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_gpu_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        train(Line(), config(tmp_path), "cuda")
    with pytest.raises(InputError, match="auto, cpu or cuda"):
        train(Line(), config(tmp_path), "cuda:1")


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


def test_stream_of_whole_blocks_has_not_changed():
    """The order that earlier runs saw, so that they can be repeated."""
    stream = ObjectStream(identity, 4, seed=1, block=8, repeats=2)
    assert [stream.batch(s) for s in range(8)] == [
        [5, 0, 1, 4],
        [2, 6, 3, 7],
        [5, 3, 7, 1],
        [0, 4, 6, 2],
        [13, 10, 14, 15],
        [12, 8, 9, 11],
        [10, 8, 14, 12],
        [15, 9, 13, 11],
    ]


def test_block_smaller_than_the_batch_holds_no_further_objects():
    stream = ObjectStream(identity, 16, seed=3, block=8, repeats=10**9)
    for step in (0, 1, 7, 10**6):
        assert sorted(stream.batch(step)) == sorted(list(range(8)) * 2)


@pytest.mark.parametrize(("block", "batch", "repeats"), [(20, 16, 2), (3, 16, 2), (5, 2, 3)])
def test_block_that_does_not_fill_batches(block, batch, repeats):
    stream = ObjectStream(identity, batch, seed=3, block=block, repeats=repeats)
    steps = -(-block * repeats // batch)
    for number in range(3):
        seen = [i for s in range(number * steps, (number + 1) * steps) for i in stream.batch(s)]
        assert len(seen) == steps * batch and set(seen) == set(range(number * block, (number + 1) * block))
        assert all(seen[: block * repeats].count(i) == repeats for i in set(seen))
    late = ObjectStream(identity, batch, seed=3, block=block, repeats=repeats)
    assert late.batch(steps + 1) == ObjectStream(identity, batch, seed=3, block=block, repeats=repeats).batch(steps + 1)


def test_shared_blocks_give_all_ranks_the_same_objects():
    streams = [ObjectStream(identity, 4, seed=1, rank=r, world=2, block=4, repeats=1, shared=True) for r in (0, 1)]
    for step in range(3):
        batches = [s.batch(step) for s in streams]
        assert sorted(batches[0]) == sorted(batches[1]) == list(range(step * 4, step * 4 + 4))


def test_training_never_sees_objects_kept_for_evaluation():
    with pytest.raises(InputError, match="first-seed"):
        MiniRecipe(preset="debug", first_seed=10**9)
    with pytest.raises(InputError, match="for evaluation"):  # the stream may run into them
        make_packed_object(10**9)


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
