"""Objects of the training split, measured to compare with: chosen as the held-out ones are, and never called held out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from bozzetto.app.cli import main
from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.pack import PackOptions
from bozzetto.errors import InputError
from bozzetto.evaluation import run
from bozzetto.evaluation.objects import dataset_samples, find_samples, procedural_sample
from bozzetto.evaluation.protocol import PROTOCOL, order_of
from bozzetto.evaluation.run import ObjectResult
from bozzetto.evaluation.summary import summarise
from bozzetto.systems.lgm.checkpoint import save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data_room"))
from asset_shapes import ball, ball_object

OBJECTS = [
    *(("sweethome3d", f"Scopia/sofa{i}", f"Scopia/sofa{i}", "CC-BY-3.0") for i in range(4)),
    ("sweethome3d", "KatorLegaz/bike", "KatorLegaz/bike", "CC-BY-3.0"),
    ("zeroad", "fauna/horse", "skeletal/horse.dae", "CC-BY-SA-3.0"),
    ("zeroad", "fauna/tiger", "skeletal/tiger.dae", "CC-BY-SA-3.0"),
    ("supertuxkart", "library/gpl", "gpl", "GPL-3+"),
    ("ufoai", "models/crate", "crate", "CC-BY-3.0"),
]


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """A dataset folder with objects of both sides."""
    folder = tmp_path_factory.mktemp("assets")
    by_source: dict[str, list] = {}
    for i, (source, name, group, licence) in enumerate(OBJECTS):
        parts = [ball(12, 8, radius=1 + i / 50)]
        by_source.setdefault(source, []).append(
            ball_object(source=source, name=name, group=group, licence=licence, parts=parts)
        )
    for source, objects in by_source.items():
        convert(source, objects, folder, PackOptions(texture_size=16))
    return folder


def test_what_is_taken(assets):
    data = Dataset(assets)
    samples = {s.name: s for s in dataset_samples(assets, split="train")}
    assert set(samples) == {"sweethome3d_train", "zeroad_train"}
    taken = {n for s in samples.values() for n in s._numbers}
    assert taken == set(data.select("train"))
    held = {n for s in dataset_samples(assets) for n in s._numbers}
    assert held and not held & taken
    sofas = samples["sweethome3d_train"]
    assert sofas.names == sorted(sofas.names, key=lambda n: order_of("sweethome3d", n)) and len(sofas) == 4
    assert dataset_samples(assets, 2, "train")[0].names == sofas.names[:2] and sofas.available == 4
    assert all(s.split == "train" and "not held out" in s.title and s.counts for s in samples.values())
    assert [o.name for o in sofas.objects()] == sofas.names


def test_procedural_seeds_of_training():
    sample = procedural_sample(3, "train")
    assert sample.name == "procedural_train" and sample.names == ["0", "1", "2"] and not sample.counts
    assert [o.split for o in sample.objects()] == ["train"] * 3
    held = procedural_sample(3)
    assert held.name == "procedural" and held.split == "test" and not held.counts
    assert not set(held.names) & set(sample.names)


def test_the_mean_says_what_it_is_of(assets):
    def result(value: float) -> ObjectResult:
        return ObjectResult("s", "o", "", {"4view": {"grid": {"psnr": value, "foreground": value}}})

    samples = find_samples([assets], 1, split="train")
    assert [s.name for s in samples] == ["procedural_train", "sweethome3d_train", "zeroad_train"]
    results = {s.name: [result(20.0 + i)] for i, s in enumerate(samples)}
    overall = summarise(results, samples)["overall"]
    assert overall["sources"] == ["sweethome3d_train", "zeroad_train"] and "not held out" in overall["label"]
    assert overall["scores"]["4view"]["grid"]["psnr"]["mean"] == pytest.approx(21.5)
    held = [replace(samples[0], name="ufoai", split="test")]
    overall = summarise({"ufoai": results["procedural_train"]}, held)["overall"]
    assert overall["sources"] == ["ufoai"] and overall["label"] == "mean of the held-out sources"


def test_what_has_no_training_split(assets, tmp_path):
    (tmp_path / "meshes").mkdir()
    with pytest.raises(InputError, match="no dataset folder"):
        find_samples([tmp_path / "meshes"], 1, split="train")
    only_held = [ball_object(source="ufoai", name="crate", group="crate", licence="CC-BY-3.0", parts=[ball(12, 8)])]
    convert("ufoai", only_held, tmp_path / "held", PackOptions(texture_size=16))
    with pytest.raises(InputError, match="holds no objects of the training split"):
        find_samples([tmp_path / "held"], 1, split="train")


def test_command(assets, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "measure_object", partial(run.measure_object, size=32))
    torch.manual_seed(0)
    save_lgm(LGM(preset("debug")), tmp_path / "own.safetensors")
    command = ["evaluate", str(tmp_path / "own.safetensors"), "--data", str(assets), "--objects", "1"]
    command += ["--perceptual", "none", "--device", "cpu"]
    said = {}
    for split in ("train", "test"):
        assert main([*command, "--split", split, "-o", str(tmp_path / split)]) == 0
        said[split] = capsys.readouterr().out
    assert "not held out" in said["train"] and "not held out" not in said["test"]
    for text, name in ((said["train"], "zeroad_train"), (said["test"], "animals")):
        heading = next(line for line in text.splitlines() if line.startswith("PSNR / foreground"))
        assert heading.split()[-5:] == ["0°", "20°", "40°", "60°", "around"]
        row = [line for line in text.splitlines() if line.startswith(f"{name:20s} 4view") and "/" in line]
        assert len(row) == 1 and row[0].count("/") == 5
    reports = {s: json.loads((tmp_path / s / "report.json").read_text()) for s in said}
    assert {s: r["split"] for s, r in reports.items()} == {"train": "train", "test": "test"}
    assert all(r["protocol"] == PROTOCOL for r in reports.values())
    assert set(reports["train"]["sources"]) == {"procedural_train", "sweethome3d_train", "zeroad_train"}
    assert set(reports["test"]["sources"]) == {"procedural", "ufoai", "katorlegaz", "animals"}
    pages = {s: (tmp_path / s / "report.html").read_text() for s in said}
    assert "mean of the training sources, not held out" in pages["train"] and "<b>not held out</b>" in pages["train"]
    assert "not held out" not in pages["test"] and "mean of the held-out sources" in pages["test"]


def test_without_data_there_is_no_training_split(tmp_path, capsys):
    assert main(["evaluate", "lgm-mini", "-o", str(tmp_path / "out"), "--split", "train", "--device", "cpu"]) != 0
    assert "--split train measures objects of dataset folders" in capsys.readouterr().err
