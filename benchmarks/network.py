"""Time of the LGM networks: ``python benchmarks/network.py [--preset mini] [--device cpu|cuda]``; prints a markdown table.

Random weights (time does not depend on them), one object, in the arithmetic that the pipelines pick, median of several runs.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from bozzetto import Cameras
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.reconstruct import autocast_dtype, reconstruct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", help="may be repeated (mini)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"torch {torch.__version__}, {name}\n")
    print("| preset | views | arithmetic | median ms | least ms |\n|---|---|---|---|---|")
    for preset_name in options.preset or ["mini"]:
        model = LGM(preset(preset_name)).eval().to(device)
        cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0])[None]
        rgba = torch.rand(1, 4, 4, 256, 256, device=device)
        for dtype in dict.fromkeys([torch.float32, autocast_dtype(device)]):
            times = []
            for run in range(options.runs + 2):
                start = time.perf_counter()
                reconstruct(model, rgba, cameras, dtype)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if run >= 2:
                    times.append((time.perf_counter() - start) * 1e3)
            arithmetic = str(dtype).removeprefix("torch.")
            print(f"| {preset_name} | 4 | {arithmetic} | {statistics.median(times):.0f} | {min(times):.0f} |")


if __name__ == "__main__":
    main()
