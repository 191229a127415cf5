"""One full-size run of every system: time by stage and peak memory, as markdown tables.

``python benchmarks/systems.py [--only lgm,triposr,shap-e-text] [--out FILE.json]`` needs a CUDA device with about 24 GB, about
12 GB of disk and no published weights: the checkpoints have made-up numbers (``full_size.py``), so the objects are blobs, while
time and memory are those of the true networks. Every result is checked: shapes, finite numbers, files.

Each run is a process of its own, in which the public function is called ``--runs`` times; every call loads its weights. The
first call includes what a new process pays once (imports beyond torch, compilation of kernels); the files are in the system's
cache, for they were just written. The device is synchronised at both ends of each stage. "with files" adds splat files, film,
pictures and viewer page. "allocated" and "reserved" are torch's peaks of device memory, "host" is the process's peak of main
memory. ``--micro`` runs toy checkpoints, to try this script (add ``--device cpu`` where there is no GPU).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from systems_run import CASES, PUBLISHED_STEPS, child

HERE = Path(__file__).resolve()
GIB = 2**30


def write_micro(entries: Iterable[str], folder: Path) -> dict[str, str]:
    """Toy checkpoints of the entries, made by the tests' writers."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "systems"))
    from bozzetto.zoo import ENTRIES

    paths: dict[str, str] = {}
    for system in sorted({ENTRIES[name].system for name in entries}):
        listed = folder / system / "paths.json"
        if not listed.is_file():
            listed.parent.mkdir(parents=True, exist_ok=True)
            written = getattr(import_module(f"micro_{system}"), f"write_micro_{system}")(listed.parent)
            listed.write_text(json.dumps({name: str(path) for name, path in written.items()}))
        paths |= json.loads(listed.read_text())
    return {name: paths[name] for name in entries}


def write_full(entries: Iterable[str], folder: Path, device: str | None) -> dict[str, str]:
    """Full-size checkpoints of the entries, in a process of its own; those that are there are kept."""
    done = {name: folder / f"{name}.json" for name in entries}  # written after the checkpoint
    missing = [name for name, path in done.items() if not path.is_file()]
    for name in missing:
        shutil.rmtree(folder / name, ignore_errors=True)
    if missing:
        command = [sys.executable, str(HERE.with_name("full_size.py")), str(folder), *missing]
        command += ["--device", device] if device else []
        for line in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
            about = json.loads(line)
            done[about["name"]].write_text(line)
            say(f"wrote {about['name']}: {about['bytes'] / 1e9:.2f} GB in {about['seconds']:.1f} s")
    return {name: json.loads(path.read_text())["path"] for name, path in done.items()}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def start_case(name: str, weights: dict[str, str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a case in a new process, within the time limit; its figures, or {"error": ...}."""
    result = folder / f"{name}.result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(HERE), "--case", name, "--weights", json.dumps(weights), "--out", str(result)]
    command += ["--steps", str(options.steps), "--runs", str(options.runs)]
    command += ["--device", options.device] if options.device else []
    command += ["--micro"] if options.micro else []
    try:
        code = subprocess.run(command, timeout=options.limit_seconds).returncode
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than --limit-seconds {options.limit_seconds:g}"}
    if result.is_file():
        return json.loads(result.read_text())
    return {"error": f"the process ended with {code} and without a result"}


def tables(results: dict[str, dict[str, Any]]) -> str:
    """The markdown tables of all results."""

    def gib(size: int) -> str:
        return f"{size / GIB:.2f}" if size else "–"

    good = {k: v for k, v in results.items() if "error" not in v}
    lines = []
    for about in {json.dumps(v["machine"]): v["machine"] for v in good.values()}.values():
        lines += [f"{about['device']}, torch {about['torch']}, Python {about['python']}, {about['checkpoints']}", ""]
    if good:
        lines += [
            "| run | first, s | last, s | last with files, s | allocated, GiB | reserved, GiB | host, GiB | result |"
        ]
        lines += ["|---" * 8 + "|"]
    for name, figures in good.items():
        first, last = figures["runs"][0], figures["runs"][-1]
        peaks = [gib(max(r[k] for r in figures["runs"])) for k in ("peak_allocated", "peak_reserved")]
        made = ", ".join(f"{v:,} {k}" for k, v in last["result"].items() if k != "bytes")
        made += f", {last['result']['bytes'] / 1e6:.1f} MB"
        times = [f"{t:.2f}" for t in (first["seconds"], last["seconds"], last["seconds_with_files"])]
        lines.append(f"| {name} | " + " | ".join([*times, *peaks, gib(figures["peak_host"]), made]) + " |")
    if good:
        lines += ["", "| run | stage | first, s | last, s | allocated, GiB |", "|---" * 5 + "|"]
    for name, figures in good.items():
        first, last = figures["runs"][0], figures["runs"][-1]
        for stage, seconds in last["timings"].items():
            peak = gib(max(r["stage_peaks"].get(stage, 0) for r in figures["runs"]))
            lines.append(f"| {name} | {stage} | {first['timings'].get(stage, 0):.2f} | {seconds:.2f} | {peak} |")
    notes = [f"* {name}: {CASES[name].note}." for name in good if CASES[name].note]
    for name, figures in good.items():
        if "seconds_per_step" in (last := figures["runs"][-1]):
            minutes = last["extrapolated_seconds_of_1200_steps"] / 60
            notes.append(
                f"* {name}: {last['seconds_per_step']:.3f} s a step over {last['steps']} steps. Extrapolated, not "
                f"measured: {PUBLISHED_STEPS:,} steps would take {minutes:.1f} min if the splats stayed as many as at "
                "the start (densification changes their number)."
            )
    notes += [f"* {name}: FAILED: {figures['error']}" for name, figures in results.items() if "error" in figures]
    return "\n".join([*lines, "", *notes])


def chosen_cases(only: str | None) -> list[str]:
    """Cases by their names or their models' names, in the order of the table."""
    if not only:
        return list(CASES)
    wanted = {part.strip() for part in only.split(",")} - {""}
    if unknown := wanted - CASES.keys() - {c.model for c in CASES.values()}:
        raise SystemExit(f"--only: unknown: {', '.join(sorted(unknown))}; known: {', '.join(CASES)}, or a model's name")
    return [name for name, case in CASES.items() if name in wanted or case.model in wanted]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,...", help=f"of {', '.join(CASES)}, or models' names")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--folder", type=Path, help="for the checkpoints (a temporary one by default)")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there, and use them the next time")
    parser.add_argument("--device", help="cuda or cpu")
    parser.add_argument("--runs", type=int, default=2, help="calls in one process")
    parser.add_argument("--steps", type=int, default=20, help="of gaussian-dreamer")
    parser.add_argument("--limit-seconds", type=float, default=900, help="for each run of the list")
    parser.add_argument("--micro", action="store_true", help="toy checkpoints, to try this script")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        return child(options)
    if options.keep and options.folder is None:
        parser.error("--keep needs --folder")
    if min(options.runs, options.steps) < 1:
        parser.error("--runs and --steps must be at least 1")
    if not options.micro and options.device is None:
        import torch

        if not torch.cuda.is_available():
            parser.error("there is no CUDA device; --device cpu runs the full-size networks nevertheless (hours)")
    names = chosen_cases(options.only)
    folder = Path(tempfile.mkdtemp()) if options.folder is None else options.folder
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    try:
        for number, name in enumerate(names):
            entries = CASES[name].entries
            say(f"-- {name}")
            try:
                weights = write_micro(entries, folder) if options.micro else write_full(entries, folder, options.device)
                results[name] = start_case(name, weights, folder, options)
            except Exception as error:
                traceback.print_exc()
                results[name] = {"error": f"{type(error).__name__}: {error}"}
            later = {e for other in names[number + 1 :] for e in CASES[other].entries}
            for entry in set(entries) - later if not (options.keep or options.micro) else ():
                shutil.rmtree(folder / entry, ignore_errors=True)
                (folder / f"{entry}.json").unlink(missing_ok=True)
            (folder / f"{name}.result.json").unlink(missing_ok=True)
            if options.out:
                options.out.write_text(json.dumps(results, indent=1))
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(tables(results), flush=True)
    return 1 if any("error" in r for r in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
