"""Stages of ``bozzetto image`` with the bundled model: ``python benchmarks/image.py [PHOTO]``; prints a markdown table.

Two runs in fresh processes: the first may compile kernels (their cache is kept between runs), the second is what a user sees
from then on; ``--runs 1`` where something ran before. Where PyAV, which bozzetto needs for films, is missing, the film's frames
are drawn but not written.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

UNWRITTEN = """
import sys
from bozzetto.files import film
film.write_film = lambda path, frames, fps=30, *, crf=None: [None for frame in frames]
from bozzetto.app.cli import main
sys.exit(main(sys.argv[1:]))
"""
PHOTO = Path(__file__).resolve().parents[1] / "examples" / "coffee_cup.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", default=str(PHOTO))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    whole = importlib.util.find_spec("av") is not None
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [sys.executable, *(("-m", "bozzetto") if whole else ("-c", UNWRITTEN)), "image", options.photo]
            subprocess.run([*command, "-o", folder, "--device", options.device, "--quiet"], check=True)
            wall = time.perf_counter() - start
            timings = json.loads((Path(folder) / "report.json").read_text())["timings"]
        if not whole:
            timings["film, drawn but not written"] = timings.pop("film")
        timings["start-up and imports"] = wall - timings.pop("total")
        runs.append(timings | {"whole command": wall})
    print(f"| stage | {' | '.join(f'run {i + 1}, s' for i in range(len(runs)))} |\n|---{'|---' * len(runs)}|")
    for stage in runs[0]:
        print(f"| {stage} | {' | '.join(f'{run[stage]:.2f}' for run in runs)} |")


if __name__ == "__main__":
    main()
