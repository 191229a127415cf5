"""Downloads through the hub's own client from a server on loopback that speaks like the hub; and what is said offline."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import COMMIT, serve

pytest.importorskip("huggingface_hub")
WEIGHTS = os.urandom(11_000_000)  # more than one block of the client
HASH = hashlib.sha256(WEIGHTS).hexdigest()
SET = {
    "name": "set",
    "repo": "own/rep",
    "files": [
        {"path": "unet/w.safetensors", "size": len(WEIGHTS), "sha256": HASH},
        {"path": "config.json"},
        {"path": "none.json", "optional": True},
    ],
}
ONE = {"name": "one", "repo": "own/rep", "files": [{"path": "unet/w.safetensors", "size": len(WEIGHTS)}]}


class Hub:
    """The server, the process that uses it, and its folders."""

    def __init__(self, server, root: Path) -> None:
        self.server, self.root = server, root
        unwanted = ("BOZZETTO_WEIGHTS", "BOZZETTO_CACHE", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN")
        env = {k: v for k, v in os.environ.items() if k not in unwanted}
        env |= {"HF_ENDPOINT": server.url, "HF_HOME": str(root / "hf"), "BOZZETTO_CACHE": str(root / "cache")}
        env |= {"BOZZETTO_WEIGHTS": str(root / "weights"), "HF_HUB_DISABLE_TELEMETRY": "1", "COLUMNS": "100"}
        worker = Path(__file__).with_name("hub_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, str(worker)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def reset(self) -> None:
        """Empty folders, and a server that behaves."""
        for name in ("hf", "cache", "weights"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        fresh = type(self.server)(url=self.server.url)
        for field in dataclasses.fields(fresh):
            setattr(self.server, field.name, getattr(fresh, field.name))
        self.server.files["/own/rep/resolve/main/unet/w.safetensors"] = WEIGHTS
        self.server.files["/own/rep/resolve/main/config.json"] = b"{}"

    def __call__(self, *argv: str, entries=(SET,)):
        """(exit code, standard output, standard error) of ``bozzetto *argv`` with a zoo of just these entries."""
        task = {"argv": list(argv), "entries": list(entries)}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["out"], answer["err"]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serve() as server:
        hub = Hub(server, tmp_path_factory.mktemp("hub"))
        yield hub
        hub.process.stdin.close()
        hub.process.wait(20)


@pytest.fixture
def hub(running):
    running.reset()
    return running


def gets(hub):
    return [(path, ranges) for method, path, ranges in hub.server.asked if method == "GET" and "/resolve/" in path]


def test_a_broken_download_goes_on_and_only_needed_files_are_fetched(hub):
    hub.server.cut, hub.server.cuts = 10_500_000, 1
    hub.server.files["/own/rep/resolve/main/README.md"] = b"not wanted"
    code, out, err = hub("models", "--download", "set")
    assert code == 0, err
    folder = Path(out.strip())
    assert folder.name == COMMIT and (folder / "unet/w.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == b"{}" and not (folder / "README.md").exists()
    weights = "/own/rep/resolve/main/unet/w.safetensors"
    assert gets(hub)[0] == (weights, None) and gets(hub)[1][0] == weights and gets(hub)[1][1].startswith("bytes=")
    before = len(hub.server.asked)
    assert hub("models", "--download", "set")[0] == 0 and len(hub.server.asked) == before  # nothing is asked again
    code, out, _ = hub("models", "--verify")
    assert code == 0 and out == "set: ok (1 of 3 files have no published hash)\n"


def test_one_file_is_a_path_to_it(hub):
    code, out, err = hub("models", "--download", "one", entries=(ONE,))
    assert code == 0, err
    assert Path(out.strip()).read_bytes() == WEIGHTS and out.strip().endswith("unet/w.safetensors")


def test_a_folder_of_ours_is_completed_in_place(hub):
    folder = hub.root / "weights" / "own" / "rep"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{ }")
    code, out, err = hub("models", "--download", "set")
    assert code == 0, err
    assert Path(out.strip()) == folder and (folder / "unet/w.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == b"{ }" and len(gets(hub)) == 1


def test_a_file_that_is_not_the_published_one(hub):
    hub.server.files["/own/rep/resolve/main/unet/w.safetensors"] = WEIGHTS[:-1] + b"x"
    code, _, err = hub("models", "--download", "set")
    assert code == 2 and "damaged" in err and "download it again" in err
    code, _, err = hub("models", "--verify", "set")  # config.json was not fetched
    assert code == 2 and "set: lacks config.json" in err
    hub.server.files["/own/rep/resolve/main/unet/w.safetensors"] = WEIGHTS[:-1]
    shutil.rmtree(hub.root / "hf")
    code, _, err = hub("models", "--download", "set")
    assert code == 2 and "has 10,999,999 bytes, set's unet/w.safetensors has 11,000,000" in err


def test_a_damaged_file_is_found_by_verify(hub):
    folder = Path(hub("models", "--download", "set")[1].strip())
    place = (folder / "unet/w.safetensors").resolve()
    place.write_bytes(WEIGHTS[:-1] + b"x")
    code, out, err = hub("models", "--verify", entries=(SET, dict(ONE, files=[{"path": "config.json"}])))
    assert code == 2 and "set: " in err and "damaged" in err and "one: ok" in out


def test_a_revision_that_is_gone(hub):
    """The repository was rewritten: the newest files count, if they are the published ones."""
    entry = dict(SET, revision="f" * 40)
    path = f"/own/rep/resolve/{'f' * 40}/unet/w.safetensors"
    hub.server.statuses[path] = [404]
    hub.server.error_codes = {path: "RevisionNotFound"}
    code, out, err = hub("models", "--download", "set", entries=(entry,))
    assert code == 0, err
    assert (Path(out.strip()) / "unet/w.safetensors").read_bytes() == WEIGHTS
    assert hub("models", "set", "--json", entries=(entry,))[1].count('"here"') == 1


def test_a_dataset_repository(hub):
    hub.server.files["/datasets/own/rep/resolve/main/a/w.pth"] = b"weights"
    entry = {"name": "data", "repo": "own/rep", "repo_type": "dataset", "files": [{"path": "a/w.pth", "size": 7}]}
    code, out, err = hub("models", "--download", "data", entries=(entry,))
    assert code == 0, err
    assert Path(out.strip()).read_bytes() == b"weights"


def test_files_and_repositories_that_do_not_exist(hub):
    del hub.server.files["/own/rep/resolve/main/config.json"]
    code, _, err = hub("models", "--download", "set")
    assert code == 2 and "no such file (any more)" in err and "huggingface.co/own/rep" in err
    path = "/own/rep/resolve/main/unet/w.safetensors"
    hub.server.statuses[path] = [401]
    hub.server.error_codes = {path: "RepoNotFound"}
    code, _, err = hub("models", "--download", "one", entries=(ONE,))
    if code == 0:  # the cache of the first download served
        shutil.rmtree(hub.root / "hf")
        code, _, err = hub("models", "--download", "one", entries=(ONE,))
    assert code == 2 and "no such repository" in err and "hf auth login" in err


def test_a_file_from_an_address_beside_the_hub(hub):
    hub.server.files["/main/shap-e/t.pt"] = WEIGHTS
    entry = {
        "name": "web",
        "url": f"{hub.server.url}/main/shap-e/",
        "folder": "openai/shap-e",
        "files": [{"path": "t.pt", "sha256": HASH}],
    }
    hub.server.cut, hub.server.cuts = 5_000_000, 1
    code, out, err = hub("models", "--download", "web", entries=(entry,))
    assert code == 0, err
    assert Path(out.strip()) == hub.root / "cache" / "openai/shap-e/t.pt" and Path(out.strip()).read_bytes() == WEIGHTS
    before = len(hub.server.asked)
    assert hub("models", "--download", "web", entries=(entry,))[0] == 0 and len(hub.server.asked) == before


def test_without_a_network_the_commands_are_given(tmp_path):
    """A whole process that can reach nobody: exit status 2, and commands that can be pasted elsewhere."""
    env = {k: v for k, v in os.environ.items() if k not in ("BOZZETTO_WEIGHTS", "HF_HUB_CACHE")}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "BOZZETTO_CACHE": str(tmp_path)}
    env |= {"HF_HUB_OFFLINE": "1"}
    for name, command in (
        ("triposr", "hf download stabilityai/TripoSR model.ckpt config.yaml --revision"),
        ("shap-e-text", "curl -fL -C - --create-dirs -o weights/openai/shap-e/text_cond.pt https://openaipublic"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "bozzetto", "models", "--download", name], env=env, capture_output=True, text=True
        )
        assert done.returncode == 2 and command in done.stderr, done.stderr
        assert "BOZZETTO_WEIGHTS" in done.stderr and "Traceback" not in done.stderr
