"""Compile every Triton kernel of the rasterizer for CUDA devices of capability 8.0 and 9.0; needs no device.

Exits with 1 if a kernel does not compile or spills registers. ``python tests/raster/compile_kernels.py``
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = tempfile.TemporaryDirectory()
os.environ["TRITON_CACHE_DIR"] = CACHE.name

import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from bozzetto.raster import (  # noqa: E402
    triton_bins,
    triton_blend,
    triton_blend_gradient,
    triton_project,
    triton_project_gradient,
    triton_sh,
)

INTEGERS = {"N", "V", "height", "width", "tiles_x", "tiles", "rows", "total", "lowest", "end"}
POINTERS = dict.fromkeys(("ids", "unsorted", "counts", "last", "keys", "words", "numbers"), "*i32")
POINTERS |= dict.fromkeys(("starts", "ends", "order", "by_tile", "records", "rectangles"), "*i64")
POINTERS["divided"] = "*i32"
POINTERS |= {"pairs": "*i16", "cells": "*i16"}
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


def compile_kernel(kernel: triton.JITFunction, capability: int, warps: int, **constants: int) -> str:
    """Compile; returns the assembler's line on registers and raises RuntimeError on spills."""
    signature = {}
    pointers = POINTERS | ({"counts": "*i64"} if kernel is triton_project.project_kernel else {})
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in INTEGERS:
            signature[name] = "i32"
        else:
            signature[name] = "fp32" if name in ("near", "far") else pointers.get(name, "*fp32")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    ptx = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        architecture = re.search(r"\.target (\w+)", ptx)[1]
        command = [str(PTXAS), "-v", f"--gpu-name={architecture}", str(path), "-o", str(path.with_suffix(".o"))]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    if " 0 bytes spill stores" not in report:
        raise RuntimeError(f"{kernel.fn.__name__} spills registers:\n{report}")
    return re.search(r"Used \d+ registers", report)[0]


def main() -> None:
    k = {"K": 4, "BLOCK": 128}
    cell = {"TILE": triton_project.TILE, "CELL": triton_project.CELL}
    cases = [
        (triton_project.project_kernel, 4, k | cell),
        (triton_project_gradient.project_gradient_kernel, 4, k),
        (triton_sh.sh_gradient_kernel, 4, k),
        (triton_bins.pair_kernel, 4, {"SIDE": 4, "BLOCK": 128}),
        (triton_bins.list_kernel, 4, {"BLOCK": 128} | cell),
        (triton_bins.count_kernel, 1, {"CELLS": 16, "BLOCK": 512}),
        (triton_bins.divide_kernel, 1, {"CELLS": 16, "BLOCK": 512}),
    ]
    for lanes in (2, 4):
        blend = {"KEEP": 1, "UNROLL": triton_blend.UNROLL, "LANES": lanes}
        cases.append((triton_blend.blend_kernel, 1, blend | cell))
        cases.append((triton_blend_gradient.blend_gradient_kernel, 1, {"LANES": lanes} | cell))
    for capability in (80, 90):
        for kernel, warps, constants in cases:
            result = compile_kernel(kernel, capability, warps, **constants)
            print(f"sm_{capability} {kernel.fn.__name__}: {result}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
