"""Checks of the Triton rasterizer on a CUDA device, without pytest: ``python tests/raster/gpu_check.py [--short]``.

Prints one line per check and exits with 1 if any failed; ``--short`` leaves out those that take the reference longest.
Parity scenes that do not travel with the repository are read from $BOZZETTO_SHARED/parity/rasterizer, if that is set.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).resolve().parent)]

from degenerate_scenes import CASES, check_degenerate, check_empty  # noqa: E402
from random_scenes import NAMES, check_random, evaluate, random_inputs, random_weights  # noqa: E402
from scenes import LOCAL_FOLDER, SCENES, check_scene  # noqa: E402

from bozzetto.raster.reference import rasterize_reference  # noqa: E402
from bozzetto.raster.triton import rasterize_triton  # noqa: E402


def check_large() -> dict[str, float]:
    """65,536 Gaussians at 256 x 256, against the reference on the same device.

    Among so many Gaussians some decisions (the 1/255 cut, the order of nearly equal depths) fall differently in float32
    and float64 and single pixels differ, so the bounds are on averages and on all but one pixel in a thousand.
    """
    inputs = random_inputs(7, 1, 1, 65536, (256, 256), 1, scale=0.006)
    weights = random_weights(8, torch.ones(1, 1, 256, 256, dtype=torch.bool))
    pictures, gradients = evaluate(rasterize_triton, inputs, (256, 256), weights, device="cuda")
    expected, expected_gradients = evaluate(
        rasterize_reference, inputs, (256, 256), weights, dtype=torch.float64, device="cuda"
    )
    out = {}
    for name, a, b in zip(("rgb", "alpha", "depth"), pictures, expected):
        error = (a - b).abs()
        out[name + "_max"], out[name + "_mean"] = float(error.max()), float(error.mean())
        out[name + "_99.9%"] = float(error.flatten().quantile(0.999))
        assert out[name + "_99.9%"] < 5e-3 and out[name + "_mean"] < 5e-5, out
    for name, b in expected_gradients.items():
        out["grad_" + name] = float((gradients[name] - b).norm() / b.norm())
        assert out["grad_" + name] < 1e-2, out
    return out


def check_batch() -> float:
    """Several scenes and views in one call give what single calls give."""
    inputs = {k: v.float().cuda() for k, v in random_inputs(9, 3, 4, 5000, (100, 130), 4, scale=0.01).items()}
    together = rasterize_triton(*(inputs[k] for k in NAMES), 100, 130, 0.01, 1e10)
    worst = 0.0
    for s in range(3):
        for v in range(4):
            one = [inputs[k][s : s + 1] for k in NAMES]
            one[5:] = [t[:, v : v + 1].contiguous() for t in one[5:]]
            alone = rasterize_triton(*one, 100, 130, 0.01, 1e10)
            worst = max(worst, *(float((a[s, v] - b[0, 0]).abs().max()) for a, b in zip(together, alone)))
    assert worst == 0.0, worst
    return worst


def main(short: bool) -> int:
    if not torch.cuda.is_available():
        print("no CUDA device")
        return 1
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    folders = [LOCAL_FOLDER]
    if "BOZZETTO_SHARED" in os.environ:
        folders.append(Path(os.environ["BOZZETTO_SHARED"]) / "parity" / "rasterizer")
    checks: list[tuple[str, Callable[[], object]]] = []
    for name in SCENES:
        path = next((f / f"{name}.npz" for f in folders if (f / f"{name}.npz").is_file()), None)
        if path is None:
            print(f"skipped {name}: not found in {', '.join(map(str, folders))}")
        else:
            checks.append((f"parity {name}", lambda path=path: check_scene(rasterize_triton, path, device="cuda")))
    shapes = [(1, 1, 40, (16, 16), 1), (2, 2, 200, (33, 50), 4), (1, 3, 500, (64, 64), 9), (2, 2, 2000, (150, 203), 16)]
    for seed, shape in enumerate(shapes[:3] if short else shapes * 2):
        checks.append(
            (f"random {seed} {shape}", lambda a=(seed, *shape): check_random(rasterize_triton, *a, device="cuda"))
        )
    for case in CASES:
        checks.append((f"degenerate {case}", lambda c=case: check_degenerate(rasterize_triton, c, device="cuda")))
    checks += [
        ("empty", lambda: check_empty(rasterize_triton, "cuda")),
        ("batch", check_batch),
    ]
    if not short:
        checks.append(("large", check_large))
    failed = 0
    for name, check in checks:
        start = time.perf_counter()
        try:
            result = check()
            torch.cuda.synchronize()
            text = {k: f"{v:.1e}" for k, v in result.items()} if isinstance(result, dict) else ""
            print(f"ok     {name} ({time.perf_counter() - start:.1f} s) {text}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name}", flush=True)
            traceback.print_exc()
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(short="--short" in sys.argv[1:]))
