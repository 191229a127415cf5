"""The training loop: exact resume, skipped bad batches, logs; and lgm-mini's recipe on it."""

from __future__ import annotations

import csv
import signal
import time

import pytest
import torch
from straight_line import Line, config, rows, run_cli, same, state

from bozzetto.app.cli import main
from bozzetto.errors import CheckpointError, InputError
from bozzetto.training.checkpoint import KEEP, list_checkpoints
from bozzetto.training.log import RunLog
from bozzetto.training.loop import TrainConfig, learning_rate, train


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
    whole, resumed = state(tmp_path / "whole"), state(tmp_path / "resumed")
    for saved in (whole, resumed):
        assert saved["description"].pop("seconds") > 0
    assert same(whole, resumed)
    with (tmp_path / "resumed" / "log.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == list(range(1, 13))  # the rows after the last checkpoint were made again, not doubled


def test_a_finished_run_says_so(tmp_path, capsys):
    train(Line(), config(tmp_path), "cpu")
    assert "is finished" not in capsys.readouterr().out
    train(Line(), config(tmp_path, steps=5, quiet=False), "cpu")
    assert "has 12 steps and is finished; it goes on with more than 12 steps" in capsys.readouterr().out


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
    + [{"max_minutes": float("nan")}, {"weight_decay": -1.0}, {"precision": "fp8"}, {"optimizer": "sgd"}]
    + [{"minutes": 0.0}],
)
def test_impossible_settings_are_refused(tmp_path, changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        train(Line(), config(tmp_path / "run", **changes), "cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option",
    [("--seed", "-1"), ("--lr", "nan"), ("--lr", "-1"), ("--lr", "0"), ("--first-seed", "1000000000")]
    + [("--first-seed", "-1"), ("--workers", "-1"), ("--distort", "2"), ("--ssim", "inf"), ("--max-minutes", "0")]
    + [("--minutes", "0"), ("--optimizer", "sgd"), ("--known", "1,2"), ("--known", "0,0,0,0"), ("--ring", "2")],
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


def test_learning_rate_schedule():
    c = TrainConfig(out="", steps=100, lr=1.0, final_lr=0.0, warmup=10)
    rates = [learning_rate(c, s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[-1] < 0.01
    assert rates.index(max(rates)) in (9, 10) and rates[10:] == sorted(rates[10:], reverse=True)


def test_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "checkpoint-00000001.pt")
    with pytest.raises(CheckpointError, match="lacks"):
        train(Line(), config(tmp_path), "cpu")


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


def test_a_run_planned_by_time_anneals_and_ends(tmp_path):
    whole = config(tmp_path, minutes=0.02, steps=1, warmup=0, checkpoint_every=10**6)
    train(Line(), whole, "cpu")
    rates = [float(r["lr"]) for r in rows(tmp_path / "log.csv")]
    assert len(rates) > 5 and rates[0] > 0.045 and rates[-1] < 0.01 and rates == sorted(rates, reverse=True)
    before = state(tmp_path)
    assert before["description"]["seconds"] >= 1.2
    train(Line(), whole, "cpu")  # its time is over
    assert state(tmp_path)["step"] == before["step"]
    train(Line(), config(tmp_path, minutes=0.03, warmup=0), "cpu")  # more time: it goes on where the clock stood
    more = [float(r["lr"]) for r in rows(tmp_path / "log.csv")][len(rates) :]
    assert more and max(more) < 0.02


def test_what_is_no_checkpoint_is_told_without_advice_to_load_it_unsafely(tmp_path):
    (tmp_path / "dataset.json").write_text('{"version": 1}')
    with pytest.raises(CheckpointError, match="is no training checkpoint; give one of a run") as told:
        train(Line(), config(tmp_path / "run", init_from=str(tmp_path / "dataset.json")), "cpu")
    assert "weights_only" not in str(told.value)
