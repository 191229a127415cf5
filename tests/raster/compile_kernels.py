"""Compile every Triton kernel of the rasterizer for CUDA devices of capability 8.0 and 9.0; needs no device.

Exits with 1 if a kernel does not compile or spills many registers. ``python tests/raster/compile_kernels.py``
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

import torch  # noqa: E402
import triton  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from bozzetto.raster import (  # noqa: E402
    triton_blend,
    triton_blend_gradient,
    triton_lists,
    triton_project,
    triton_project_gradient,
)
from bozzetto.raster.triton_launch import Launcher  # noqa: E402

INTEGERS = {"N", "V", "height", "width", "tiles_x", "tiles", "groups", "room", "pair_room", "entry_room"}
INTEGERS |= {"view_scene", "view_step", "lens_scene", "lens_step"}
POINTERS = dict.fromkeys(("counts", "scratch", "words", "numbers"), "*i32")
POINTERS |= dict.fromkeys(("ends", "records", "pairs", "keys", "ordered", "table", "needed", "report"), "*i64")
POINTERS |= dict.fromkeys(("cells", "ids", "entries", "last"), "*i16")  # of the last three: up to 65,536 Gaussians
POINTERS["rest"] = "*i8"
SPILLS = 32  # bytes a thread; the list kernel runs faster with 20 than with three quarters of the threads
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


def compile_kernel(kernel: triton.JITFunction, capability: int, options: dict[str, int], **constants: int) -> str:
    """Compile; returns the assembler's line on registers and raises RuntimeError on spills."""
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in INTEGERS:
            signature[name] = "i32"
        else:
            signature[name] = "fp32" if name in ("near", "far") else POINTERS.get(name, "*fp32")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        architecture = re.search(r"\.target (\w+)", ptx)[1]
        command = [str(PTXAS), "-v", f"--gpu-name={architecture}", str(path), "-o", str(path.with_suffix(".o"))]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    if int(re.search(r"(\d+) bytes spill stores", report)[1]) > SPILLS:
        raise RuntimeError(f"{kernel.fn.__name__} spills registers:\n{report}")
    return re.search(r"Used \d+ registers", report)[0]


def launchers() -> list[Launcher]:
    """All kernels, with SH of degree 1."""
    return [
        triton_project._launcher(4, True, False),
        triton_project._launcher(4, False, False),
        triton_project._launcher(1, True, True),
        *triton_project_gradient._launchers(4, 2, True),
        triton_project_gradient._launchers(1, 2, True)[0],
        *(triton_lists._launcher(torch.int16, record, True) for record in (3, 5)),
        *(triton_blend._launcher(True, lanes, lean, torch.int16, True) for lanes in (2, 4) for lean in (False, True)),
        *(
            triton_blend_gradient._launcher(lanes, lean, torch.int16, False)
            for lanes in (2, 4)
            for lean in (False, True)
        ),
    ]


def main() -> None:
    cases = [(launcher.kernel, launcher.options, launcher.constants) for launcher in launchers()]
    for capability in (80, 90):
        for kernel, options, constants in cases:
            result = compile_kernel(kernel, capability, options, **constants)
            print(f"sm_{capability} {kernel.fn.__name__}: {result}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
