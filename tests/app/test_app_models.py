"""`bozzetto models`: what is where, in a table that fits; details; download, verify, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bozzetto.app.cli import main
from bozzetto.pipelines import PIPELINES
from bozzetto.zoo import ENTRIES
from bozzetto.zoo.offline import fetch_commands

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """An empty ``BOZZETTO_WEIGHTS``, an empty cache, and no hub."""
    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("BOZZETTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("bozzetto.zoo.local.hub_file", lambda entry, path: None)
    return tmp_path / "weights"


def put(weights, name, *only):
    """Empty files of the published sizes for the entry (or only some of its paths)."""
    for file in ENTRIES[name].files:
        if not only or file.path in only:
            place = weights / ENTRIES[name].folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as out:
                out.truncate(file.size or 10)


def shown(capsys, *argv):
    code = main(["models", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_tables_fit_and_name_everything(weights, capsys):
    put(weights, "lgm-big")
    put(weights, "triposr", "config.yaml")
    code, out, _ = shown(capsys)
    lines = out.splitlines()
    assert code == 0 and max(map(len, lines)) <= 100
    for name in [*PIPELINES, *ENTRIES]:
        assert any(line.startswith(f"{name} ") for line in lines), name
    state = {line.split()[0]: line for line in lines if line}
    table = out[out.index("WEIGHTS") :]
    row = {line.split()[0]: line.split()[1] for line in table.splitlines() if len(line.split()) > 2}
    assert row["lgm-mini"] == "bundled" and row["lgm-big"] == "here" and row["triposr"] == "partly"
    assert row["mvdream"] == "missing" and "not for commercial use" in state["l4gm-recon"]


def test_a_pipeline_says_what_it_lacks_and_how_to_get_it(weights, capsys):
    put(weights, "imagedream")
    put(weights, "l4gm-recon")
    out = shown(capsys, "l4gm")[1]
    assert "bozzetto models --download l4gm" in out
    assert "hf download jiawei011/L4GM interp.safetensors" in out and "recon.safetensors" not in out
    assert "weights/jiawei011/L4GM" in out and "BOZZETTO_WEIGHTS" in out
    put(weights, "l4gm-interp")
    assert "download" not in shown(capsys, "l4gm")[1]


def test_weights_say_their_files_licence_and_memory(weights, capsys):
    put(weights, "triposr", "config.yaml")
    out = shown(capsys, "triposr")[1]
    assert "MIT: free to use" in out and "419.3 M parameters in fp32" in out and "1.7 GB" in out
    rows = {line.split()[0]: line.split()[1] for line in out[out.index("FILE") :].splitlines() if len(line.split()) > 2}
    assert rows["config.yaml"] == "here" and rows["model.ckpt"] == "missing"
    assert "429e2c6b22a09239" in out and "hf download stabilityai/TripoSR model.ckpt --revision" in out


def test_every_entry_can_be_shown_and_states_its_terms(weights, capsys):
    for name, entry in ENTRIES.items():
        assert (entry.terms and entry.licence and entry.memory and entry.folder) or entry.bundled
        code, out, _ = shown(capsys, name)
        assert code == 0 and entry.licence in out and all(f.path in out for f in entry.files)
        if not entry.bundled:
            assert all(command in out for command in fetch_commands(entry))


def test_every_weight_of_a_pipeline_is_in_the_zoo():
    for pipeline in PIPELINES.values():
        for names in pipeline.weights.values():
            assert set(names) <= set(ENTRIES), pipeline.name


def test_json(weights, capsys):
    put(weights, "lgm-big")
    code, out, _ = shown(capsys, "--json")
    content = json.loads(out)
    assert code == 0 and [m["name"] for m in content["models"]] == list(PIPELINES)
    by_name = {w["name"]: w for w in content["weights"]}
    assert set(by_name) == set(ENTRIES)
    assert by_name["lgm-big"]["state"] == "here" and by_name["lgm-big"]["fetch"] == []
    assert by_name["shap-e-text"]["fetch"][0].startswith("curl ")
    content = json.loads(shown(capsys, "shap-e", "--json")[1])
    assert [w["name"] for w in content["weights"]] == [
        "clip-vit-l14",
        "shap-e-image",
        "shap-e-transmitter",
        "shap-e-text",
    ]


def test_names_that_do_not_exist(weights, capsys):
    for argv in (["lgm-huge"], ["--download", "lgm-huge"], ["--verify", "lgm-huge"]):
        code, _, err = shown(capsys, *argv)
        assert code == 2 and "lgm-huge" in err and "gaussian-dreamer" in err and "sd21-base" in err
    code, _, err = shown(capsys, "lgm", "--download", "lgm")
    assert code == 2 and "once" in err


def test_download_prints_where_it_is_and_takes_models_or_weights(weights, capsys, monkeypatch):
    for name in ("lgm-big", "imagedream", "mvdream"):
        put(weights, name)
    code, out, _ = shown(capsys, "--download", "lgm", "lgm-big", "lgm-mini")
    assert code == 0
    places = [weights / ENTRIES[n].folder for n in ("imagedream", "lgm-big", "mvdream")]
    lines = out.split("\n")
    assert [lines[0], lines[1], lines[2]] == [str(places[0]), str(places[1] / ENTRIES["lgm-big"].file), str(places[2])]
    assert lines[3].endswith("lgm-mini.safetensors")


def test_verify(weights, capsys):
    code, out, _ = shown(capsys, "--verify")
    assert code == 0 and out.splitlines() == ["lgm-mini: ok", "lgm-mini-clean: ok", "u2netp: ok"]
    put(weights, "l4gm-recon")
    put(weights, "triposr", "config.yaml")
    code, out, err = shown(capsys, "--verify", "l4gm", "lgm-mini", "triposr")
    assert code == 2 and out == "lgm-mini: ok\n"
    assert "l4gm-recon: " in err and "recon.safetensors is damaged" in err
    assert "l4gm-interp: not here" in err and "triposr: lacks model.ckpt" in err
    assert json.loads(shown(capsys, "--verify", "lgm-mini", "--json")[1]) == {"lgm-mini": "ok"}


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (
            ["image", str(EXAMPLES / "coffee_cup.png"), "--model", "triposr"],
            "hf download stabilityai/TripoSR model.ckpt",
        ),
        (["text", "a cup", "--model", "shap-e"], "weights/openai/clip-vit-large-patch14"),
    ],
)
def test_a_model_whose_weights_cannot_be_fetched(argv, command, tmp_path):
    """Exit status 2, the exact command to run elsewhere, and nothing written."""
    pytest.importorskip("diffusers")
    env = {k: v for k, v in os.environ.items() if k not in ("BOZZETTO_WEIGHTS", "HF_HUB_CACHE")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "BOZZETTO_CACHE": str(tmp_path / "cache")}
    output = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "bozzetto", *argv, "-o", str(output), "--device", "cpu"],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and command in done.stderr, done.stderr
    assert "BOZZETTO_WEIGHTS" in done.stderr and "Traceback" not in done.stderr and not output.exists()


def test_listing_needs_no_torch():
    """The command is quick: it lists from tables alone."""
    code = "import sys; from bozzetto.app.cli import main; main(['models', '-q']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
