"""What is measured with is never trained on: the rules, the selection, and who may import whom."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path

import pytest

import bozzetto
from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.licence_choice import permits
from bozzetto.data.assets.pack import PackOptions
from bozzetto.data.assets.splits import TRAINING_SOURCES, is_gpl
from bozzetto.data.procedural import HELD_OUT_SEEDS, generate_object
from bozzetto.data.stream import ObjectStream
from bozzetto.errors import InputError
from bozzetto.evaluation.objects import dataset_samples, procedural_sample
from bozzetto.evaluation.protocol import HELD_OUT
from bozzetto.systems.lgm.generated import make_packed_object
from bozzetto.systems.lgm.recipe import MiniRecipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data_room"))
from asset_shapes import ball, ball_object

SOURCE = Path(bozzetto.__file__).parent
HELD = [
    ("ufoai", "models/crate", "crate", "CC-BY-3.0"),
    ("openarena", "sarge/red", "sarge", "GPL-2+"),
    ("flightgear_ai", "A320/x", "A320", "GPL-2+"),
    ("sweethome3d", "KatorLegaz/bike", "KatorLegaz/bike", "CC-BY-3.0"),
    ("zeroad", "structures/kushites/house", "structural/kush_house.dae", "CC-BY-SA-3.0"),
    ("zeroad", "fauna/tiger", "skeletal/tiger.dae", "CC-BY-SA-3.0"),
]
GPL = [("supertuxkart", "library/gpl", "gpl", "GPL-3+"), ("megaglest", "unit/gpl", "unit", "CC-BY-SA-3.0 AND GPL-3+")]
TRAINED = [
    ("sweethome3d", "Scopia/sofa", "Scopia/sofa", "CC-BY-3.0"),
    ("zeroad", "fauna/horse", "skeletal/horse.dae", "CC-BY-SA-3.0"),
    ("supertuxkart", "library/tree", "tree", "CC-BY-SA-3.0"),
    ("megaglest", "unit/tree", "tree", "CC-BY-SA-3.0"),
]


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """A dataset folder with objects of both sides of every collection."""
    folder = tmp_path_factory.mktemp("assets")
    by_source: dict[str, list] = {}
    for i, (source, name, group, licence) in enumerate(HELD + GPL + TRAINED):
        part = ball(12, 8, radius=1 + i / 50)
        obj = ball_object(source=source, name=name, group=group, licence=licence, parts=[part])
        by_source.setdefault(source, []).append(obj)
    for source, objects in by_source.items():
        convert(source, objects, folder, PackOptions(texture_size=16))
    return folder


def names(data: Dataset, numbers: list[int]) -> set[tuple[str, str]]:
    return {(data.record(i)["source"], data.record(i)["name"]) for i in numbers}


def test_training_gets_what_is_trained_on_and_nothing_else(assets):
    data = Dataset(assets)
    assert names(data, data.select("train")) == {(s, n) for s, n, _, _ in TRAINED}
    assert not any(is_gpl(data.record(i)["licence"]) for i in data.select("train"))


def test_a_file_that_says_train_is_not_believed(assets, monkeypatch):
    """Whoever writes "train" into the records of held-out or GPL objects trains on them no more for that."""
    data = Dataset(assets)
    for record in data.records():
        monkeypatch.setitem(record, "split", "train")
    fresh = Dataset.__new__(Dataset)
    fresh.__dict__.update(data.__dict__)
    fresh._mixed = set()
    assert names(fresh, fresh.select("train")) == {(s, n) for s, n, _, _ in TRAINED}


def test_evaluation_takes_only_what_is_never_trained_on(assets):
    data = Dataset(assets)
    trained = names(data, data.select("train"))
    groups = {(data.record(i)["source"], data.record(i)["group"]) for i in data.select("train")}
    samples = dataset_samples(assets)
    assert {s.name for s in samples} == set(HELD_OUT)
    for sample in samples:
        source = HELD_OUT[sample.name].source
        for number in sample._numbers:
            record = data.record(number)
            assert (source, record["name"]) not in trained and (source, record["group"]) not in groups
    assert all(s.names for s in samples) and sum(len(s) for s in samples) == len(HELD)


def test_a_users_collection_never_takes_a_held_out_name(tmp_path):
    """Reports have "animals" as a part of 0 A.D., which counts in the overall mean; a user's collection may be called so."""
    parts = [[ball(12, 8, radius=1 + i / 50)] for i in range(40)]
    objects = [ball_object(source="animals", name=f"o{i}", group=f"g{i}", parts=p) for i, p in enumerate(parts)]
    convert("animals", objects, tmp_path)
    assert {s.name for s in dataset_samples(tmp_path)} == {"animals_folder"}


def test_procedural_objects_of_the_evaluation_cannot_be_trained_on():
    seeds = procedural_sample(50)._numbers
    assert all(s in HELD_OUT_SEEDS and generate_object(s).split == "test" for s in seeds[:3])
    for seed in (seeds[0], seeds[-1], HELD_OUT_SEEDS.stop - 1):
        with pytest.raises(InputError, match="for training"):
            make_packed_object(seed)
        with pytest.raises(InputError, match="for training"):
            MiniRecipe(first_seed=seed)
    # No step of a long run on many processes comes near them.
    stream = ObjectStream(lambda s: s, 64, rank=63, world=64, block=1024)
    assert stream.object_seed(10_000, 1023) < HELD_OUT_SEEDS.start


@lru_cache(1)
def modules() -> dict[str, ast.Module]:
    return {p.relative_to(SOURCE).as_posix(): ast.parse(p.read_text(encoding="utf-8")) for p in SOURCE.rglob("*.py")}


def imported(path: str, tree: ast.Module) -> set[str]:
    """Dotted names below the package that a module imports, lazily or not."""
    package = path.split("/")[:-1]
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            full = full.removeprefix("bozzetto.") if not node.level else full
            out |= {full} | {f"{full}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            out |= {a.name.removeprefix("bozzetto.") for a in node.names}
    return out


def test_training_never_imports_the_evaluation():
    rooms = ("training/", "systems/", "data/", "fitting/", "raster/", "surface/", "camera/", "files/", "zoo/")
    guilty = {
        path
        for path, tree in modules().items()
        if path.startswith(rooms)
        and any(n == "evaluation" or n.startswith("evaluation.") for n in imported(path, tree))
    }
    assert guilty == set()


def test_whoever_trains_on_datasets_selects_the_training_split():
    """Modules that open a :class:`Dataset` to train on it ask for ``select("train", ...)`` and take no objects otherwise."""
    guilty = []
    for path, tree in modules().items():
        if not path.startswith(("training/", "systems/", "data/library/")):
            continue
        if not any(n.endswith("catalogue.Dataset") for n in imported(path, tree)):
            continue
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
        splits = [
            c.args[0].value if c.args and isinstance(c.args[0], ast.Constant) else None
            for c in calls
            if c.func.attr == "select"
        ]
        if not splits or set(splits) - {"train"}:
            guilty.append(path)
    assert guilty == []


LISTS = sorted((SOURCE / "zoo" / "weights").glob("*.attribution.md"))


@pytest.mark.parametrize("path", LISTS, ids=[p.name for p in LISTS])
def test_published_weights_are_made_without_gpl_data(path):
    """The list of authors beside the weights of a network trained here: no held-out collection, nothing under the GPL; of a
    clean variant nothing that asks for the same licence either."""
    text = path.read_text(encoding="utf-8")
    sources = re.findall(r"^## (\S+): [\d,]+ objects", text, re.M)
    licences = re.findall(r"^- (.+?): ", text, re.M)
    assert sources and licences and set(sources) <= TRAINING_SOURCES
    assert not any(is_gpl(x) or x == "licence not stated" for x in licences)
    if "clean" in path.name:
        assert all(permits(x, ("clean",)) for x in licences)
    assert "KatorLegaz" not in text and "Andrew Kator" not in text


def test_every_network_trained_here_names_its_authors():
    assert {p.name for p in LISTS} >= {"lgm-mini.attribution.md", "lgm-mini-clean.attribution.md"}


def test_real_datasets_where_they_are():
    """All records of the folders named in BOZZETTO_ASSETS (separated as PATH is): no leak between the sides."""
    folders = [f for f in os.environ.get("BOZZETTO_ASSETS", "").split(os.pathsep) if f]
    if not folders:
        pytest.skip("set BOZZETTO_ASSETS to dataset folders")
    for folder in folders:
        data = Dataset(folder)
        train = data.select("train")
        assert not any(is_gpl(data.record(i)["licence"]) or not data.record(i)["licence"] for i in train)
        groups = {(data.record(i)["source"], data.record(i)["group"]) for i in train}
        for sample in dataset_samples(folder, 10**6):
            assert not {(data.record(i)["source"], data.record(i)["group"]) for i in sample._numbers} & groups
        json.dumps(data.statistics("train"))
