"""Stages of ``bozzetto image`` with the bundled model: ``python benchmarks/image.py [PHOTO]``; prints a markdown table.

Two runs in fresh processes: the first may compile CPU kernels (their cache is kept between runs), the second is what a user
sees from then on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "coffee_cup.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", default=str(PHOTO))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    runs = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "bozzetto",
                "image",
                options.photo,
                "-o",
                folder,
                "--device",
                options.device,
            ]
            subprocess.run([*command, "--quiet"], check=True)
            wall = time.perf_counter() - start
            timings = json.loads((Path(folder) / "report.json").read_text())["timings"]
        timings["start-up and imports"] = wall - timings.pop("total")
        runs.append(timings | {"whole command": wall})
    print("| stage | first run, s | second run, s |\n|---|---|---|")
    for stage in runs[0]:
        print(f"| {stage} | {runs[0][stage]:.2f} | {runs[1][stage]:.2f} |")


if __name__ == "__main__":
    main()
