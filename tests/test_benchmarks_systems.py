"""``benchmarks/systems.py``: toy runs of the whole, and how it tells of its own failures."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "systems"))

import full_size
import systems
import systems_run


def test_toy_run_prints_tables_and_writes_figures(tmp_path, capfd, monkeypatch):
    """One good run and one whose checkpoint cannot be written: the first is not harmed, the exit status tells."""
    out = tmp_path / "figures.json"
    write_micro = systems.write_micro

    def full_disk(entries, folder):
        if "shap-e-text" in entries:
            raise OSError("no space left")
        return write_micro(entries, folder)

    monkeypatch.setattr(systems, "write_micro", full_disk)
    arguments = ["--micro", "--device", "cpu", "--runs", "2", "--only", "triposr,shap-e-text", "--out", str(out)]
    assert systems.main(arguments) == 1
    text, errors = capfd.readouterr()
    figures = json.loads(out.read_text())
    assert [len(figures[k].get("runs", ())) for k in ("triposr", "shap-e-text")] == [2, 0]
    run = figures["triposr"]["runs"][1]
    assert {"load_model", "network", "mesh", "film"} <= run["timings"].keys() and run["result"]["faces"] >= 100
    assert run["seconds_with_files"] > run["seconds"] > 0 and figures["triposr"]["peak_host"] > 1e8
    assert "| triposr | network |" in text and "toy checkpoints" in text
    assert "shap-e-text: FAILED: OSError: no space left" in text and "Traceback" in errors


def test_a_run_that_fails_leaves_its_error(tmp_path, capfd, monkeypatch):
    from bozzetto.job import timed

    monkeypatch.setattr(timed, "__enter__", timed.__enter__)  # is put back afterwards
    monkeypatch.setattr(timed, "__exit__", timed.__exit__)
    weights = json.dumps({"triposr": str(tmp_path / "none")})
    out = tmp_path / "triposr.json"
    options = {
        "case": "triposr",
        "weights": weights,
        "out": out,
        "micro": False,
        "device": "cpu",
        "runs": 1,
        "steps": 1,
    }
    assert systems_run.child(argparse.Namespace(**options)) == 1
    assert json.loads(out.read_text())["error"].startswith("InputError: ")
    assert "Traceback" in capfd.readouterr().err


def test_without_a_gpu_nothing_is_written(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        systems.main(["--only", "triposr"])
    assert "no CUDA device" in capsys.readouterr().err


def test_full_size_checkpoints_are_written_once(tmp_path, monkeypatch):
    """In one process for all that are missing; stands in for the writer, which would write gigabytes."""
    calls = []

    def run(command, **options):
        calls.append(command[2:])
        lines = [json.dumps({"name": n, "path": f"/{n}", "bytes": 1, "seconds": 1.0}) for n in command[3:]]
        return subprocess.CompletedProcess(command, 0, "\n".join(lines))

    monkeypatch.setattr(systems.subprocess, "run", run)
    assert systems.write_full(["triposr"], tmp_path, None) == {"triposr": "/triposr"}
    assert systems.write_full(["triposr", "lgm-big"], tmp_path, None) == {"triposr": "/triposr", "lgm-big": "/lgm-big"}
    assert calls == [[str(tmp_path), "triposr"], [str(tmp_path), "lgm-big"]]


def test_too_slow_runs_are_stopped(tmp_path, capsys):
    assert systems.main(["--micro", "--device", "cpu", "--only", "triposr", "--limit-seconds", "0.2"]) == 1
    assert "took longer than --limit-seconds 0.2" in capsys.readouterr().out


def test_gaussian_dreamer_is_extrapolated_and_says_so():
    run = {"seconds": 9.0, "seconds_with_files": 9.5, "timings": {"optimise": 5.0}, "peak_allocated": 3 << 30}
    run |= {"peak_reserved": 4 << 30, "stage_peaks": {"optimise": 3 << 30}, "result": {"gaussians": 12345, "bytes": 1}}
    run |= {"steps": 20, "seconds_per_step": 0.25, "extrapolated_seconds_of_1200_steps": 300.0}
    machine = {"device": "GPU", "torch": "2", "python": "3", "checkpoints": "made up"}
    text = systems.tables({"gaussian-dreamer": {"runs": [run], "machine": machine, "peak_host": 1 << 30}})
    assert "0.250 s a step over 20 steps. Extrapolated, not measured: 1,200 steps would take 5.0 min" in text
    assert "| gaussian-dreamer | 9.00 | 9.00 | 9.50 | 3.00 | 4.00 | 1.00 | 12,345 gaussians" in text


def test_names_of_runs():
    assert systems.chosen_cases("shap-e,lgm-text") == ["lgm-text", "shap-e-text", "shap-e-photo"]
    assert systems.chosen_cases(None) == list(systems_run.CASES)
    with pytest.raises(SystemExit, match="unknown: nerf"):
        systems.chosen_cases("nerf")
    for case in systems_run.CASES.values():
        assert set(case.entries) <= set(full_size.NAMES)


def test_wrong_results_are_refused():
    systems_run.check_sizes({"faces": 10}, {"faces": (5, 10)})
    for result in ({"faces": 11}, {}):
        with pytest.raises(RuntimeError, match="the result is wrong"):
            systems_run.check_sizes(result, {"faces": (5, 10)})


def test_help():
    text = subprocess.run(
        [sys.executable, systems.__file__, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--limit-seconds" in text and "--weights" not in text
