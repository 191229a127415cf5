"""``make bench``: entries run one after another, each within its limit."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def run(tmp_path, monkeypatch):
    path = Path(__file__).resolve().parent.parent / "benchmarks" / "run.py"
    spec = importlib.util.spec_from_file_location("benchmarks_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "quick.py").write_text("import sys; print('| table', sys.argv[1:])")
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    (tmp_path / "slow.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module.torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(
        module,
        "ON_THE_GPU",
        {"slow.py": ("what takes long", 0.3), "broken.py": ("what fails", 20), "quick.py --a 1": ("what works", 20)},
    )
    monkeypatch.setattr(module, "ON_THE_CPU", {"quick.py --b 2": ("the CPU's", 20)})
    return module


def test_a_failure_does_not_stop_the_others(run, capfd):
    assert run.main([]) == 1
    out, err = capfd.readouterr()
    assert "## What works: `quick.py --a 1`" in out and "| table ['--a', '1']" in out and "--b" not in out
    assert "slow.py (stopped after 0 s)" in err and "broken.py (exit status 3)" in err


def test_words_and_the_cpu_are_chosen(run, capfd):
    assert run.main(["quick"]) == 0 and run.main(["--cpu"]) == 0
    out = capfd.readouterr().out
    assert "['--a', '1']" in out and "['--b', '2']" in out


def test_all_together_end_in_time(run, capfd, monkeypatch):
    monkeypatch.setattr(run, "IN_ALL", 0.2)
    assert run.main([]) == 1
    out, err = capfd.readouterr()
    assert "slow.py (stopped after 0 s), broken.py (no time was left), quick.py --a 1 (no time was left)" in err
    assert "table" not in out


def test_everything_is_started_side_by_side_before_it_is_measured(run, capfd, monkeypatch, tmp_path):
    (tmp_path / "note.py").write_text(
        "import sys, pathlib; pathlib.Path(__file__).with_name(sys.argv[1]).touch(); print('seen', sys.argv[1])"
    )
    entries = {
        "note.py a": ("a", 20, "note.py first-a"),
        "slow.py": ("b", 0.2, "slow.py"),
        "quick.py": ("c", 20, "broken.py"),
    }
    monkeypatch.setattr(run, "ON_THE_GPU", entries)
    monkeypatch.setattr(run, "FIRST", 3.0)
    assert run.main([]) == 1
    out, err = capfd.readouterr()
    assert (tmp_path / "first-a").exists() and (tmp_path / "a").exists()
    assert "seen a" in out and "seen first-a" not in out
    assert "still at work: slow.py" in out and "exit status 3: broken.py" in out
    assert "broken.py" not in err
    (tmp_path / "first-a").unlink()
    assert run.main(["note"]) == 0 and not (tmp_path / "first-a").exists()  # one entry alone compiles in its own time
