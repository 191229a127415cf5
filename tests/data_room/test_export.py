"""Rendered data: what is written is what our readers, LGM's layout and WebDataset's reader understand."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from asset_shapes import arm, ball, ball_object, picture
from PIL import Image

from bozzetto import Cameras
from bozzetto.app.cli import main
from bozzetto.camera.lgm_folder import house_to_poses, is_lgm_folder, poses_to_house, read_lgm_folder
from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.scene import SceneObject
from bozzetto.data.export import RenderOptions, render_dataset
from bozzetto.data.export import run as export_run
from bozzetto.data.export.cameras import LGM_RING, l4gm_angles, orbit, view_angles
from bozzetto.data.export.layouts import clip_times, object_key
from bozzetto.data.render import SceneBatch, render_objects
from bozzetto.errors import InputError
from bozzetto.files.images import read_image
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.rendered import rendered_item

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def tinted(i: int) -> np.ndarray:
    out = picture(32)
    out[:8, :8, :3] = COLOURS[i % 5]
    return out


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Five balls and a moving arm, all in the training split, and one object under the GPL."""
    folder = tmp_path_factory.mktemp("assets")
    objects = [
        ball_object(source="supertuxkart", name=f"ball{i}", group=f"g{i}", textures=[tinted(i)], caption=f"ball {i}")
        for i in range(5)
    ]
    objects.append(ball_object(source="supertuxkart", name="gpl", group="gpl", licence="GPL-3+", parts=[ball(10, 6)]))
    convert("supertuxkart", objects, folder)
    convert("zeroad", [replace(arm(9), source="zeroad", name="arm", group="arm.dae", licence="CC-BY-SA-3.0")], folder)
    return folder


def test_lgm_folders_are_read_back(assets, tmp_path):
    options = RenderOptions(format="lgm", size=32, views=12, sources=("supertuxkart",))
    report = render_dataset(assets, tmp_path / "out", options)
    assert (report.objects, report.skipped, report.pictures) == (5, 0, 60)  # never the GPL one
    folder = tmp_path / "out" / object_key("supertuxkart", 0)
    assert is_lgm_folder(folder)
    posed = read_lgm_folder(folder)
    cameras = orbit(view_angles(12))
    assert torch.allclose(posed.cameras.camera_to_world, cameras.camera_to_world, atol=1e-6)
    assert torch.allclose(posed.cameras.intrinsics, cameras.intrinsics, atol=1e-6)
    data = Dataset(assets, ["supertuxkart"])
    scene = SceneBatch.pack([SceneObject(data[0], fit="rest").at_rest()])
    truth = render_objects(scene, cameras, 32, outputs=("rgba",)).rgba[0]
    stored = torch.stack([read_image(p).rgba for p in posed.paths])
    assert float((stored - truth).abs().max()) < 0.5 / 255 + 1e-6
    item = rendered_item(
        stored.permute(0, 3, 1, 2), posed.cameras, replace(preset("small"), input_size=32, output_size=32)
    )
    assert item.inputs.shape == (4, 9, 32, 32) and float(item.masks.max()) == 1
    about = json.loads((folder / "about.json").read_text())
    assert about["caption"] == "ball 0" and about["licence"] == "CC0-1.0" and about["split"] == "train"
    assert "Jane" in (tmp_path / "out" / "ATTRIBUTION.md").read_text()


def test_an_interrupted_export_goes_on(assets, tmp_path, monkeypatch):
    options = RenderOptions(format="lgm", size=16, views=4, sources=("supertuxkart",))
    write, calls = export_run.write_lgm, []

    def stops(folder, obj, number, drawing):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(folder, obj, number, drawing)

    monkeypatch.setattr(export_run, "write_lgm", stops)
    with pytest.raises(KeyboardInterrupt):
        render_dataset(assets, tmp_path / "out", options)
    monkeypatch.setattr(export_run, "write_lgm", write)
    report = render_dataset(assets, tmp_path / "out", options)
    assert (report.objects, report.skipped, report.pictures) == (5, 2, 12)
    undisturbed = tmp_path / "other"
    render_dataset(assets, undisturbed, options)
    files = sorted(p.relative_to(undisturbed) for p in undisturbed.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert all((undisturbed / f).read_bytes() == (tmp_path / "out" / f).read_bytes() for f in files)
    with pytest.raises(InputError, match="another size"):
        render_dataset(assets, tmp_path / "out", replace(options, size=24))


def test_authors_are_named_before_their_objects_and_stay_named(assets, tmp_path, monkeypatch):
    options = RenderOptions(format="lgm", size=16, views=4, sources=("supertuxkart",))

    def stops(folder, obj, number, drawing):
        assert "Jane" in (folder / "ATTRIBUTION.md").read_text()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export_run, "write_lgm", stops)
        render_dataset(assets, tmp_path / "out", replace(options, limit=2))
    render_dataset(assets, tmp_path / "out", options)
    named = (tmp_path / "out" / "ATTRIBUTION.md").read_bytes()
    with pytest.raises(InputError, match="export of 5 objects"):
        render_dataset(assets, tmp_path / "out", replace(options, limit=2))
    assert (tmp_path / "out" / "ATTRIBUTION.md").read_bytes() == named


def test_a_dataset_folder_keeps_its_own_attribution(assets):
    before = (assets / "ATTRIBUTION.md").read_bytes()
    with pytest.raises(InputError, match="is a dataset folder; give another"):
        render_dataset(assets, assets, RenderOptions(size=32, views=2, limit=1))
    assert (assets / "ATTRIBUTION.md").read_bytes() == before and not (assets / "render.json").exists()


def test_damaged_notes_of_an_export(assets, tmp_path):
    options = RenderOptions(format="webdataset", size=16, views=2, per_shard=3, sources=("supertuxkart",))
    render_dataset(assets, tmp_path, options)
    whole = (tmp_path / "train-000000.tar").read_bytes()
    (tmp_path / "train-000000.json").write_text("[0,")
    assert render_dataset(assets, tmp_path, options).skipped == 2  # the other shard's
    assert (tmp_path / "train-000000.tar").read_bytes() == whole
    for damaged in ("{", "5"):
        (tmp_path / "render.json").write_text(damaged)
        with pytest.raises(InputError, match=r"render\.json cannot be read"):
            render_dataset(assets, tmp_path, options)


def read_shards(paths):
    """Samples of WebDataset shards: by its own reader where it is installed, else from the tar files."""
    try:
        import webdataset
    except ImportError:
        samples: dict[str, dict[str, bytes]] = {}
        for path in paths:
            with tarfile.open(path) as archive:
                for member in archive.getmembers():
                    key, extension = member.name.split(".", 1)
                    samples.setdefault(key, {"__key__": key})[extension] = archive.extractfile(member).read()
        return list(samples.values())
    return list(webdataset.WebDataset([str(p) for p in paths], shardshuffle=False, empty_check=False))


def test_shards_are_read_back(assets, tmp_path):
    options = RenderOptions(
        format="webdataset", size=24, views=5, sources=("supertuxkart",), per_shard=2, light="random"
    )
    report = render_dataset(assets, tmp_path, options)
    assert report.pictures == 25
    paths = sorted(tmp_path.glob("*.tar"))
    assert [p.name for p in paths] == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    samples = read_shards(paths)
    assert [s["__key__"] for s in samples] == [object_key("supertuxkart", i) for i in range(5)]
    import io

    for i, sample in enumerate(samples):
        about = json.loads(sample["json"])
        assert about["caption"] == f"ball {i}" and about["fov_y"] == 49.1
        poses = np.load(io.BytesIO(sample["cameras.npy"]))
        assert np.allclose(poses, orbit(view_angles(5)).camera_to_world.numpy())
        shots = [np.array(Image.open(io.BytesIO(sample[f"{k:03d}.png"]))) for k in range(5)]
        assert all(s.shape == (24, 24, 4) and s[..., 3].max() == 255 for s in shots)
    before = [p.read_bytes() for p in paths]
    again = render_dataset(assets, tmp_path, options)
    assert again.pictures == 0 and again.skipped == 5
    paths[1].unlink()
    assert render_dataset(assets, tmp_path, options).pictures == 10
    assert [p.read_bytes() for p in paths] == before


def test_clips_have_l4gms_layout(assets, tmp_path):
    report = render_dataset(assets, tmp_path, RenderOptions(format="l4gm", size=16, seed=3))
    assert report.objects == 1
    for kind, views in (("fixed_16", 16), ("random", 32)):
        for rate, frames in (("clip", 7), ("24fps", 24)):
            (path,) = (tmp_path / f"{kind}_{rate}").glob("*.tar")
            assert path.name.split("-")[:2] == ["zeroad", "000006"]  # the second field groups by object
            with tarfile.open(path) as archive:
                names = archive.getnames()
                assert sum(n.endswith(".jpg") for n in names) == views * frames
                import io

                rotation = np.load(io.BytesIO(archive.extractfile("./004/camera/rotation.npy").read()))
                elevation = np.load(io.BytesIO(archive.extractfile("./004/camera/elevation.npy").read()))
                assert rotation.shape == elevation.shape == (frames,)
                if kind == "fixed_16":
                    assert np.allclose(rotation, 90) and np.allclose(elevation, 0)
                shot = np.array(Image.open(io.BytesIO(archive.extractfile("./000/img/003.jpg").read()))).astype(int)
                mask = np.array(Image.open(io.BytesIO(archive.extractfile("./000/mask/003.png").read())))
                assert mask.shape == (16, 16) and mask.max() == 255
                assert shot[mask == 0].min() > 235
    assert render_dataset(assets, tmp_path, RenderOptions(format="l4gm", size=16, seed=3)).pictures == 0


def test_poses_are_the_inverse_of_reading_them():
    poses = Cameras.orbit([0.0, 33.0, 200.0], [0.0, 40.0, -20.0]).camera_to_world.double()
    assert torch.allclose(poses_to_house(house_to_poses(poses)), poses, atol=1e-12)


def test_cameras():
    azimuth, elevation = view_angles(100)
    ring = list(LGM_RING)
    assert len(azimuth) == len(elevation) == 100 and all(elevation[i] == 0 for i in ring)
    assert [azimuth[i] for i in (36, 45, 54, 63)] == [0.0, 90.0, 180.0, 270.0]
    others = [e for i, e in enumerate(elevation) if i not in ring]
    assert min(others) < -25 and max(others) > 65
    for count in (1, 3, 4, 32):
        azimuth, elevation = view_angles(count)
        assert len(azimuth) == len(elevation) == count
    assert view_angles(32)[0][:8] == [45.0 * k for k in range(8)]
    assert l4gm_angles(1) == l4gm_angles(1) != l4gm_angles(2)
    low, high = min(l4gm_angles(1)["random"][1]), max(l4gm_angles(1)["random"][1])
    assert -5 <= low < 5 and 20 < high <= 30
    assert clip_times(1.0, 8.0, None).tolist() == [k / 8 for k in range(9)]
    assert clip_times(0.5, 24.0, 24).max() < 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"format": "zip"},
        {"split": "all"},
        {"light": "dark"},
        {"size": 4},
        {"per_shard": 0},
        {"format": "l4gm", "views": 3},
    ],
)
def test_bad_options(change):
    with pytest.raises(InputError):
        RenderOptions(**change)


def test_command(assets, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["data", "render", str(assets), "-o", str(out), "--format", "lgm", "--size", "16", "--views", "4"]
    assert main([*command, "--source", "supertuxkart", "--limit", "2", "--device", "cpu"]) == 0
    assert "8 pictures drawn" in capsys.readouterr().out
    assert main([*command, "--source", "supertuxkart", "--device", "cpu"]) == 0
    assert "2 of them were there; 12 pictures" in capsys.readouterr().out
    assert main(["data", "render", str(assets), "-o", str(out), "--split", "val"]) == 2
    assert "no objects of the split val" in capsys.readouterr().err


def test_an_interrupted_command_says_that_it_goes_on(assets, tmp_path, capsys, monkeypatch):
    def stops(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(export_run, "write_lgm", stops)
    assert main(["data", "render", str(assets), "-o", str(tmp_path), "--size", "16", "--device", "cpu"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
