"""Turn a video of one moving object, taken by a still camera, into a sequence of splats (4D).

VIDEO is any file that FFmpeg reads, a GIF, or a folder of numbered pictures. Writes frames/*.ply (one per moment), a compact
sequence file, player.html, fixed.mp4, turntable.mp4, preview.png and report.json into DIR. The object is cut out of its
background unless the video has transparency.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..options import add_matting, add_output, add_system_options, add_weights, asset_options, check_output
from ..progress import Progress

EXAMPLES = (
    "bozzetto video clip.mp4 -o out/",
    "bozzetto video clip.mp4 -o out/ --start 2 --seconds 3 --fps 15",
    "bozzetto video frames/ -o out/ --no-matting",
)


def configure(parser: argparse.ArgumentParser, model: str | None = None) -> None:
    """Add the command's arguments; the help is about the options of ``model``."""
    parser.add_argument("video", metavar="VIDEO", help="video file, GIF, or folder of pictures")
    parser.add_argument(
        "--fps", type=float, metavar="X", help="frames a second to reconstruct (at least 15 of the video's own)"
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS", help="where to begin (0)")
    parser.add_argument("--seconds", type=float, metavar="SECONDS", help="how much to take (all)")
    add_output(parser, "l4gm", "video")
    add_matting(parser)
    add_weights(parser)
    add_system_options(parser, "video", "l4gm", model)


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Reconstruct the video."""
    from ...api import video_to_4d

    folder = Path(options.output)
    check_output(folder)
    asset = video_to_4d(
        options.video,
        matting=options.matting,
        fps=options.fps,
        start=options.start,
        seconds=options.seconds,
        progress=progress,
        **asset_options(options),
    )
    for note in asset.report["notes"]:
        progress.say(f"note: {note}")
    progress.summary(asset.save(folder, progress))
