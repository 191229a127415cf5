"""Measure a model on held-out procedural objects: novel-view PSNR from four views and from one, and a picture sheet.

The protocol is stated in bozzetto/systems/lgm/evaluation.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..options import add_device, check_output, positive
from ..progress import Progress

EXAMPLES = ("bozzetto evaluate lgm-mini -o report/ --objects 32",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a name from `bozzetto models`, or a weights file")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for evaluation.json and sheet.png")
    parser.add_argument("--objects", type=positive, default=32, metavar="N", help="held-out objects (32)")
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Measure the model; write evaluation.json and sheet.png."""
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
    check_output(options.output)
    model = load(named, str(device))
    if not isinstance(model, LGM):
        raise InputError(f"{options.model} makes no Gaussians of posed views; evaluate a model of the LGM family")
    progress("evaluating", 0.0)
    result = evaluate_procedural(model, device, options.objects, sheet_rows=min(options.objects, 12))
    with output_folder(options.output) as work:
        text = json.dumps({"model": options.model, "objects": options.objects, "psnr": result.numbers}, indent=2)
        (work / "evaluation.json").write_text(text + "\n")
        write_image(work / "sheet.png", result.sheet.cpu())
    for key, value in result.numbers.items():
        progress.result(f"{key:28s} {value:6.2f} dB")
    progress.summary([Path(options.output) / "evaluation.json", Path(options.output) / "sheet.png"])
