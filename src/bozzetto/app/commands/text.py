"""Turn a description of one object into a 3D object.

Writes splats.ply and mesh.glb (what the model makes of the two), turntable.mp4, preview.png, viewer.html and report.json into
DIR; with several prompts, into one sub-folder per prompt. gaussian-dreamer takes minutes: it draws previews into
DIR.progress/ as it goes, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..many import folders, run_each, slug
from ..options import add_mesh, add_output, add_system_options, add_weights, system_options, workspace
from ..progress import Progress

EXAMPLES = (
    'bozzetto text "a wooden chair" -o out/',
    'bozzetto text "a wooden chair" -o out/ --model shap-e',
    'bozzetto text "a fox" -o out/ --model gaussian-dreamer --device cuda',
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to make, in quotes")
    add_output(parser, "lgm", "text")
    add_mesh(parser)
    add_weights(parser)
    add_system_options(parser, "text")


def run(options: argparse.Namespace, progress: Progress) -> int:
    """Make an object for every prompt; one that fails does not stop the others. Returns the exit code."""
    from ...api import text_to_3d
    from ...pipelines import find_pipeline

    find_pipeline(options.model, "text")

    def work(prompt: str, folder: Path) -> None:
        asset = text_to_3d(
            prompt,
            model=options.model,
            seed=options.seed,
            mesh=options.mesh,
            device=options.device,
            weights=dict(options.weights),
            progress=progress,
            workspace=workspace(folder),
            **system_options(options),
        )
        progress.summary(asset.save(folder, progress))

    targets = folders([slug(prompt) for prompt in options.prompts], options.output)
    return run_each(options.prompts, targets, work, progress)
