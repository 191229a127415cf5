"""Measure a model on held-out objects.

With --data the protocol is "views": held-out collections in dataset folders (see `bozzetto data`), or folders of Google Scanned
Objects, ABO, OmniObject3D or plain meshes; four views and one view, 64 new cameras, PSNR, SSIM, perceptual distance, meshes;
report.json and report.html. `--split train` measures objects of the training split in the same way, to compare. Without it,
"procedural": a quick look at generated objects. docs/evaluation.md states both.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ..numbers import positive
from ..options import add_device, add_refine, check_output
from ..progress import Progress

EXAMPLES = (
    "bozzetto evaluate lgm-mini -o report/ --objects 32",
    "bozzetto evaluate lgm-mini --data assets/ -o report/",
    "bozzetto evaluate runs/mini.safetensors --data assets/ ~/gso --meshes 10 -o report/",
    "bozzetto evaluate triposr --data ~/gso --objects 30 -o report/",
    "bozzetto evaluate lgm-mini --data assets/ --split train -o trained/",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a name from `bozzetto models`, or a weights file")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the report")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="FOLDER", help="dataset folders, or folders of benchmark meshes"
    )
    parser.add_argument("--protocol", choices=("views", "procedural"), help="views with --data, procedural without")
    parser.add_argument(
        "--objects", type=positive, metavar="N", help="objects of each source (views: 50; procedural: 32)"
    )
    parser.add_argument(
        "--split",
        choices=("test", "train"),
        default="test",
        help="objects of dataset folders: held out, or of the training split, to compare with; no result to publish (test)",
    )
    parser.add_argument(
        "--meshes", type=int, default=0, metavar="N", help="make and measure meshes of the first N objects, too (0)"
    )
    parser.add_argument(
        "--perceptual",
        metavar="FILE",
        help="weights of the perceptual distance, or their folder; 'none' leaves it out (the cache folder, where it has them)",
    )
    add_refine(parser)
    parser.set_defaults(refine=None)  # to tell whether it was given
    parser.add_argument(
        "--kind",
        choices=("auto", "plain", "objaverse", "gso", "abo", "omniobject3d"),
        default="auto",
        help="layout of folders of meshes (auto)",
    )
    parser.add_argument("--up", choices=("y", "z"), help="axis of those meshes that points up")
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="processes that measure, on a CPU one for each core (1)",
    )
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Measure the model and write the report."""
    from ...errors import InputError

    protocol = options.protocol or ("views" if options.data else "procedural")
    if protocol == "procedural" and options.data:
        raise InputError("--protocol procedural takes no --data; leave one of them out")
    if protocol == "procedural" and options.workers > 1:
        raise InputError(
            "--protocol procedural is measured by one process; leave out --workers, or use --protocol views"
        )
    if protocol == "procedural" and options.meshes:
        raise InputError("--protocol procedural makes no meshes; use --protocol views")
    if protocol == "procedural" and options.refine is not None:
        raise InputError(
            "--protocol procedural measures the network alone; leave out --refine, or use --protocol views"
        )
    if protocol == "procedural" and options.split == "train":
        raise InputError("--split train measures objects of dataset folders; give them with --data")
    check_output(options.output)
    (_views if protocol == "views" else _procedural)(options, progress)


def _procedural(options: argparse.Namespace, progress: Progress) -> None:
    from ...device import pick_device
    from ...errors import InputError
    from ...files.atomic import output_folder
    from ...files.images import write_image
    from ...pipelines import PIPELINES
    from ...systems.lgm.evaluation import evaluate_procedural
    from ...systems.lgm.network import LGM
    from ...zoo import ENTRIES, load

    device = pick_device(options.device)
    named = options.model
    if named in PIPELINES and "views" in PIPELINES[named].inputs:
        named = PIPELINES[named].weights["views"][0]
    fitting = [e.name for e in ENTRIES.values() if "views" in e.inputs]
    if named not in fitting and (named in PIPELINES or named in ENTRIES):
        raise InputError(f"{options.model} makes no Gaussians of posed views; models that do: {', '.join(fitting)}")
    model = load(named, str(device))
    if not isinstance(model, LGM):
        raise InputError(f"{options.model} makes no Gaussians of posed views; evaluate a model of the LGM family")
    progress("evaluating", 0.0)
    objects = options.objects or 32
    result = evaluate_procedural(model, device, objects, sheet_rows=min(objects, 12))
    with output_folder(options.output) as work:
        text = json.dumps({"model": options.model, "objects": objects, "psnr": result.numbers}, indent=2)
        (work / "evaluation.json").write_text(text + "\n")
        write_image(work / "sheet.png", result.sheet.cpu())
    for key, value in result.numbers.items():
        progress.result(f"{key:28s} {value:6.2f} dB")
    progress.summary([Path(options.output) / "evaluation.json", Path(options.output) / "sheet.png"])


def _views(options: argparse.Namespace, progress: Progress) -> None:
    from ...asset import versions
    from ...device import pick_device
    from ...errors import InputError
    from ...evaluation.models import load_distance, load_model
    from ...evaluation.objects import find_samples
    from ...evaluation.parallel import Job, measure_in_processes
    from ...evaluation.protocol import OBJECTS, PROTOCOL, SIZE
    from ...evaluation.report import write_report
    from ...evaluation.run import measure
    from ...evaluation.summary import summarise
    from ...options import REFINE_STEPS

    if options.meshes < 0:
        raise InputError("--meshes must be 0 or more")
    device = pick_device(options.device)
    perceptual, network = load_distance(options.perceptual, device)
    progress("loading the model", 0.0)
    refine = REFINE_STEPS if options.refine is None else options.refine
    model = load_model(options.model, device, refine)
    if model.reconstruct is None:  # it makes a mesh
        if options.refine is not None:
            raise InputError(f"{options.model} takes one photo, so that --refine does nothing; leave it out")
        refine = 0
    count = options.objects or OBJECTS
    progress("reading the objects", 0.0)
    samples = find_samples(options.data, count, kind=options.kind, up=options.up or "", split=options.split)
    began = time.perf_counter()
    if options.workers > 1:
        del model  # every process has its own
        job = Job(options.model, str(device), options.perceptual, options.meshes, refine)
        results = measure_in_processes(job, samples, options.workers, progress)
    else:
        results = measure(model, samples, perceptual=perceptual, mesh_objects=options.meshes, tell=progress)
    about = {
        "protocol": PROTOCOL,
        "split": options.split,
        "model": options.model,
        "refine": refine,
        "objects_per_source": count,
        "mesh_objects_per_source": options.meshes,
        "size": SIZE,
        "perceptual_network": network,
        "data": [Path(f).expanduser().resolve().name for f in options.data],
        "device": str(device),
        "seconds": round(time.perf_counter() - began, 1),
        "versions": versions(),
    }
    summary = summarise(results, samples)
    paths = write_report(options.output, about, summary, results)
    _print(summary, progress)
    progress.summary(paths)


def _print(summary: dict, progress: Progress) -> None:
    """PSNR full frame and foreground on the grid, a line for each source; then the same by elevation."""
    from ...evaluation.report import BY_ELEVATION

    scores = {name: s["scores"] for name, s in summary["sources"].items()}
    if len(summary["overall"]["sources"]) > 1:
        scores["mean of the sources"] = summary["overall"]["scores"]
    for name, s in scores.items():
        for task, sets in s.items():
            if "psnr" in sets.get("grid", {}) and task != "baseline":
                full, front = sets["grid"]["psnr"], sets["grid"]["foreground"]
                progress.result(
                    f"{name:20s} {task}  {full['mean']:6.2f} dB ({full['low']:.2f} to {full['high']:.2f})   "
                    f"foreground {front['mean']:6.2f} dB   {full['count']} objects"
                )
            if "aligned_chamfer" in sets.get("mesh", {}):
                mesh = sets["mesh"]
                progress.result(
                    f"{name:20s} {task} mesh  Chamfer {mesh['aligned_chamfer']['mean']:.4f}   "
                    f"F(0.02) {mesh['aligned_f_score_0.02']['mean']:.3f}   watertight {mesh['watertight']['mean']:.0%}"
                )
    rows = []
    for name, s in scores.items():
        for task, sets in s.items():
            if all("psnr" in sets.get(kind, {}) for kind in BY_ELEVATION):
                values = ((sets[kind][m]["mean"] for m in ("psnr", "foreground")) for kind in BY_ELEVATION)
                rows.append(f"{name:20s} {task}" + "".join(f"{full:8.2f} /{front:6.2f}" for full, front in values))
    if rows:
        progress.result(
            f"{'PSNR / foreground, dB':26s}" + "".join(f"{title:^16s}" for title in BY_ELEVATION.values()).rstrip()
        )
    for row in rows:
        progress.result(row)
    if any(s["split"] == "train" for s in summary["sources"].values()):
        progress.result("training split: these objects are not held out, and a network may have been trained on them")
