"""Turn a description of one object into a 3D object.

Writes splats.ply and mesh.glb (what the model makes of the two), turntable.mp4, preview.png, viewer.html and report.json into
DIR; with several prompts, into one sub-folder per prompt. gaussian-dreamer takes minutes: it draws previews into
DIR.progress/ as it goes, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..many import folders, run_each, slug
from ..options import (
    add_mesh,
    add_output,
    add_system_options,
    add_weights,
    asset_options,
    check_output,
    workspace,
)
from ..progress import Progress

EXAMPLES = (
    'bozzetto text "a wooden chair" -o out/',
    'bozzetto text "a wooden chair" -o out/ --model shap-e',
    'bozzetto text "a fox" -o out/ --model gaussian-dreamer --device cuda',
)


def configure(parser: argparse.ArgumentParser, model: str | None = None) -> None:
    """Add the command's arguments; the help is about the options of ``model``."""
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to make, in quotes")
    add_output(parser, "lgm", "text")
    add_mesh(parser)
    add_weights(parser)
    add_system_options(parser, "text", "lgm", model)


def run(options: argparse.Namespace, progress: Progress) -> int:
    """Make an object for every prompt; one that fails does not stop the others. Returns the exit code."""
    from ...api import prepare, text_to_3d

    given = asset_options(options)
    targets = folders([slug(prompt) for prompt in options.prompts], options.output)
    check_output(targets[0])
    if len(targets) > 1:
        prepare("text", progress=progress, **given)  # once, and before anything is made

    def work(prompt: str, folder: Path) -> None:
        try:
            asset = text_to_3d(prompt, progress=progress, workspace=workspace(folder), **given)
        except BaseException:
            if any(workspace(folder).glob("*.safetensors")):
                options.resumes = f"the same command goes on from the state in {workspace(folder)}"
            raise
        progress.summary(asset.save(folder, progress))

    return run_each(options.prompts, targets, work, progress)
