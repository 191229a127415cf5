"""Time of imports: ``python benchmarks/imports.py``; prints a markdown table.

Each number is the median over fresh processes, without the start of Python itself; files are in the system's cache.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

# What is timed -> (what is imported before the clock starts, what is timed).
CASES = {
    "`import bozzetto`": ("", "import bozzetto"),
    "`import torch`": ("", "import torch"),
    "all public names of bozzetto, beyond torch": (
        "import torch",
        "import bozzetto; [getattr(bozzetto, name) for name in bozzetto.__all__]",
    ),
}


def seconds(before: str, timed: str) -> float:
    """Time of ``timed`` in a new process."""
    script = f"import time\n{before}\nbegan = time.perf_counter()\n{timed}\nprint(time.perf_counter() - began)"
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print("| import | seconds |\n|---|---|")
    for name, (before, timed) in CASES.items():
        seconds(before, timed)  # fills the system's cache
        print(f"| {name} | {statistics.median(seconds(before, timed) for _ in range(options.runs)):.3f} |")


if __name__ == "__main__":
    main()
