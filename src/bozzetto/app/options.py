"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

import argparse


def add_device(parser: argparse.ArgumentParser) -> None:
    """The --device option."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (auto)")


def add_reconstruction(parser: argparse.ArgumentParser) -> None:
    """What `image` and `views` have in common."""
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--model", default="lgm-mini", metavar="NAME", help="a name from `bozzetto models` (lgm-mini)")
    parser.add_argument("--seed", type=int, default=0, help="for models that draw random numbers (0)")
    parser.add_argument("--no-mesh", dest="mesh", action="store_false", help="skip mesh.glb")
    parser.add_argument(
        "--no-matting", dest="matting", action="store_false", help="do not cut the object out of its background"
    )
    add_device(parser)


def box(text: str) -> tuple[int, int, int, int]:
    """``x0,y0,x1,y1`` in pixels."""
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected x0,y0,x1,y1 in pixels, got {text!r}") from None
    if x1 <= x0 or y1 <= y0:
        raise argparse.ArgumentTypeError(f"the box {text} is empty: x1 must exceed x0 and y1 must exceed y0")
    return x0, y0, x1, y1


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {value}")
    return value
