"""What is given on the command line is checked before any work: weights, options, names; and the help is readable."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bozzetto import image_to_3d, text_to_3d, video_to_4d
from bozzetto.app.cli import build_parser, main
from bozzetto.app.many import slug
from bozzetto.app.options import workspace
from bozzetto.device import pick_device
from bozzetto.errors import ImageError, InputError, MissingDependencyError
from bozzetto.job import Job
from bozzetto.pipelines import PIPELINES, for_kind

COMMANDS = {"image": "photo", "text": "text", "video": "video"}


# ---- help


def help_of(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_is_short_and_lists_every_option(command, capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, command)
    assert len(text.splitlines()) <= 72
    assert max(map(len, text.splitlines())) <= 80
    for pipeline in for_kind(COMMANDS[command]):
        assert pipeline.name in text
        for f in dataclasses.fields(pipeline.options_class(COMMANDS[command])):
            assert "--" + f.name.replace("_", "-") in text, f.name


@pytest.mark.parametrize("spelling", [["--model", "shap-e"], ["--model=shap-e"]])
def test_help_of_a_model_is_about_that_model(spelling, capsys, monkeypatch):
    lgm, shap_e = help_of(capsys, monkeypatch, "text"), help_of(capsys, monkeypatch, "text", *spelling)
    assert "options of lgm" in lgm and "denoising steps" in lgm and "--weights-variant" in lgm.split("other models")[1]
    assert "options of shap-e" in shap_e and "sampling steps" in shap_e and "denoising steps" not in shap_e
    assert "openai" in shap_e and "(64)" in shap_e


def test_long_default_texts_are_cut(capsys, monkeypatch):
    text = " ".join(help_of(capsys, monkeypatch, "text", "--model", "gaussian-dreamer").split())
    assert "(ugly, bad anatomy" in text and "bad proportions" not in text


def test_usage_errors_are_one_line(capsys):
    for arguments, part in ((["text", "-o", "out", "-chair"], "put -- before"), (["image", "-o", "out"], "PHOTO")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and part in err and "--help" in err and err.count("\n") == 1


def test_a_prompt_may_begin_with_a_dash():
    given = build_parser("text").parse_args(["text", "-o", "out", "--", "-chair"])
    assert given.prompts == ["-chair"]


# ---- names of folders


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a wooden chair", "a_wooden_chair"),
        ('a "red" cat, \'50s/style\\', "a_red_cat_50s_style"),
        ("कुर्सी", "कुर्सी"),
        ("เก้าอี้ไม้", "เก้าอี้ไม้"),
        ("赤い猫", "赤い猫"),
        ("../../etc", "etc"),
        ("🦊", "prompt"),
    ],
)
def test_prompts_as_folder_names(prompt, name):
    assert slug(prompt) == name


def test_the_workspace_of_a_folder_without_a_name(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    for folder in (".", "", "../out", "../out/"):
        assert workspace(Path(folder)) == tmp_path / "out.progress"


# ---- what fails, fails before weights are fetched


def test_wrong_input_is_told_before_weights_are_fetched(no_weights, tmp_path, capsys):
    out = ["-o", str(tmp_path / "out")]
    assert main(["image", str(tmp_path / "none.png"), "--model", "lgm", *out]) == 2
    assert "none.png does not exist" in capsys.readouterr().err
    for given in (["--fps", "nan"], ["--seconds", "inf"], ["--start", "-1"], []):
        assert main(["video", str(tmp_path / "none.mp4"), *given, *out]) == 2
    with pytest.raises(InputError, match="fps must be positive"):
        video_to_4d(tmp_path, fps=float("nan"))


def test_an_unusable_output_is_told_before_anything_is_done(no_weights, tmp_path, capsys):
    (tmp_path / "file").write_text("here")
    for command in (["text", "a cat"], ["image", "a.png"], ["video", "a.mp4"], ["views", "scene"]):
        assert main([*command, "-o", str(tmp_path / "file" / "out")]) == 4
        assert "is a file" in capsys.readouterr().err
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert main(["text", "a cat", "-o", str(tmp_path / "closed" / "out")]) == 4


def test_missing_weights_are_told_all_at_once(tmp_path, capsys, monkeypatch):
    pytest.importorskip("diffusers")
    for name in ("HF_HOME", "BOZZETTO_CACHE", "BOZZETTO_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    asked = []

    def unreachable(entry, progress=None):
        asked.append(entry.name)
        raise InputError(f"cannot download {entry.name}")

    monkeypatch.setattr(sys.modules["bozzetto.zoo.load"], "download", unreachable)
    monkeypatch.setattr("bozzetto.zoo.local.hub_file", lambda entry, path: None)
    assert main(["text", "a", "b", "--model", "shap-e", "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert asked == ["clip-vit-l14"]  # once for both prompts
    assert "text_cond.pt" in err and "transmitter.pt" in err and "image_cond.pt" not in err


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("bozzetto.pipelines.importlib.util.find_spec", lambda name: None)
    assert main(["text", "a cat", "-o", str(tmp_path / "out")]) == 3
    assert "bozzetto[diffusion]" in capsys.readouterr().err
    assert main(["models", "shap-e"]) == 0
    assert "bozzetto[diffusion]" in capsys.readouterr().out
    with pytest.raises(MissingDependencyError):
        PIPELINES["l4gm"].check_extra()


def test_without_the_hub_s_client_both_ways_out_are_told(monkeypatch, tmp_path, capsys):
    for name in ("HF_HOME", "BOZZETTO_CACHE", "BOZZETTO_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("bozzetto.zoo.local.hub_file", lambda entry, path: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["models", "--download", "triposr"]) == 3
    err = capsys.readouterr().err
    assert "bozzetto[hub]" in err and "hf download stabilityai/TripoSR model.ckpt config.yaml" in err


def test_details_of_every_model_in_a_fresh_process():
    """Nothing that other modules import along the way is taken for granted."""
    done = subprocess.run([sys.executable, "-m", "bozzetto", "models", *PIPELINES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mvdream with --prior mvdream" in done.stdout


# ---- values


@pytest.mark.parametrize("name", list(PIPELINES))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30, True, None, "1"])
def test_numbers_that_are_none_are_refused(name, value):
    for kind in PIPELINES[name].options:
        options = PIPELINES[name].options_class(kind)
        for f in dataclasses.fields(options):
            if type(f.default) in (int, float):
                with pytest.raises(InputError, match="--" + f.name.replace("_", "-")):
                    options(**{f.name: value})


def test_devices_and_seeds():
    for device in ("tpu", "cuda:x", "cuda:", "cuda:-1", "", 3, "cuda:99"):
        with pytest.raises(InputError):
            pick_device(device)
    for seed in (-1, 2**63, 1.5, float("nan"), True, "1", None):
        with pytest.raises(InputError, match="seed"):
            Job(torch.device("cpu"), seed)


@pytest.mark.parametrize(
    "photo",
    [
        torch.zeros(0, 4, 3),
        torch.zeros(4, 4, 3, dtype=torch.int64),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4)),
        np.full((4, 4, 3), np.nan),
        object(),
        None,
    ],
)
def test_arrays_that_are_no_pictures(photo):
    with pytest.raises(ImageError):
        image_to_3d(photo, matting=False)


def test_what_the_package_warns_of_is_one_plain_line(monkeypatch, capsys, tmp_path):
    from bozzetto.app.commands import mesh
    from bozzetto.systems.shap_e.clip import ClipText

    class Tokenizer:
        def __call__(self, prompt, **settings):
            return {"input_ids": list(range(len(prompt.split())))}

        def decode(self, ids):
            return "the last words"

    class Tower:
        config = type("config", (), {"max_position_embeddings": 77})

    monkeypatch.setattr(mesh, "run", lambda options, progress: ClipText(Tower(), Tokenizer())(["cat " * 100]) and None)
    monkeypatch.setattr(ClipText, "embed_tokens", lambda self, ids: None)
    usual = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        usual = warnings.showwarning
        assert main(["mesh", "a.ply", "-o", "b.glb"]) == 0
        assert warnings.showwarning is usual
    err = capsys.readouterr().err
    assert err.startswith("bozzetto: note: the prompt") and "UserWarning" not in err and err.count("\n") == 1


def test_the_time_that_is_left_is_told(monkeypatch):
    from bozzetto.app import progress

    clock, drawn = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress.sys, "stderr", type("err", (), {"write": drawn.append, "flush": lambda: None}))
    told = progress.Progress(enabled=False)
    told.live = True
    for second, stage, share in (
        (0, "optimising from step 40, 100 splats", 0.2),  # a run that was taken up
        (2, "optimising from step 40, 100 splats", 0.21),
        (10, "optimising from step 40, 200 splats", 0.3),
        (20, "optimising from step 40, 300 splats", 0.4),
        (21, "rendering turntable", 0.5),
        (31, "rendering turntable", 0.75),
        (41, "rendering turntable", 1.0),
    ):
        clock[0] = 100.0 + second
        told(stage, share)
    left = [line.partition("left")[0].rpartition(", ")[2] if "left" in line else "" for line in drawn]
    assert left == ["", "", "1:10 min ", "1:00 min ", "", "0:10 min ", ""]
    clock[0] += 10
    told("downloading a: 1.0 of 4.0 GB", 0.001)
    clock[0] += 10
    told("downloading a: 2.0 of 4.0 GB", 0.002)
    assert drawn[-1].endswith(", 2:46 h left")


def test_text_that_is_no_unicode_is_refused(no_weights):
    with pytest.raises(InputError, match="prompt is not valid Unicode text at character 4"):
        text_to_3d("cat\udcff")
    with pytest.raises(InputError, match="--negative-prompt is not valid"):
        PIPELINES["lgm"].options_class("text")(negative_prompt="\udcff")
