"""Measure a model on held-out procedural objects: novel-view PSNR from four views and from one, and a picture sheet.

The protocol is stated in bozzetto/systems/lgm/evaluation.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..options import add_device, positive
from ..progress import Progress

EXAMPLES = ("bozzetto evaluate lgm-mini -o report/ --objects 32",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", help="a name from `bozzetto models`, or a weights file")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for evaluation.json and sheet.png")
    parser.add_argument("--objects", type=positive, default=32, help="held-out objects (32)")
    add_device(parser)


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Measure the model; write evaluation.json and sheet.png."""
    from ...device import pick_device
    from ...errors import InputError
    from ...files.atomic import output_folder
    from ...files.images import write_image
    from ...systems.lgm.evaluation import evaluate_procedural
    from ...zoo import load

    device = pick_device(options.device)
    model = load(options.model, str(device))
    if getattr(getattr(model, "config", None), "in_channels", None) is None:
        raise InputError(f"{options.model} makes no Gaussians; evaluate an LGM model")
    progress("evaluating", 0.0)
    result = evaluate_procedural(model, device, options.objects, sheet_rows=min(options.objects, 12))
    with output_folder(options.output) as work:
        text = json.dumps({"model": options.model, "objects": options.objects, "psnr": result.numbers}, indent=2)
        (work / "evaluation.json").write_text(text + "\n")
        write_image(work / "sheet.png", result.sheet.cpu())
    for key, value in result.numbers.items():
        progress.result(f"{key:28s} {value:6.2f} dB")
    progress.summary([Path(options.output) / "evaluation.json", Path(options.output) / "sheet.png"])
