"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..options import flag
from ..pipelines import for_kind

_PREFIX = "system_"  # of the destinations of options that belong to one model


def add_device(parser: argparse.ArgumentParser) -> None:
    """The --device option."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (auto)")


def add_output(parser: argparse.ArgumentParser, default_model: str, kind: str) -> None:
    """The options of every command that makes an asset: where to, with which model, where."""
    names = ", ".join(p.name for p in for_kind(kind))
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--model", default=default_model, metavar="NAME", help=f"{names}; or a weights file ({default_model})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (0)")
    add_device(parser)


def add_mesh(parser: argparse.ArgumentParser) -> None:
    """The --no-mesh option."""
    parser.add_argument("--no-mesh", dest="mesh", action="store_false", help="make no mesh")


def add_matting(parser: argparse.ArgumentParser) -> None:
    """The --no-matting option."""
    parser.add_argument(
        "--no-matting", dest="matting", action="store_false", help="do not cut the object out of its background"
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The --weights option."""
    parser.add_argument(
        "--weights",
        action="append",
        type=_weights,
        default=[],
        metavar="NAME=PATH",
        help="local file or folder in place of these weights (names: `bozzetto models`); may be repeated",
    )


def _weights(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {text!r}")
    return name, path


def add_system_options(parser: argparse.ArgumentParser, kind: str) -> None:
    """An argument for every option of every model that takes this kind of input; one that is not given stays None."""
    seen: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for pipeline in for_kind(kind):
        for f in dataclasses.fields(pipeline.options_class(kind)):
            seen.setdefault(f.name, []).append((pipeline.name, f))
    if not seen:
        return
    group = parser.add_argument_group("options of single models (in brackets: the model and its default)")
    for name, owners in sorted(seen.items()):
        f = owners[0][1]
        defaults: dict[str, list[str]] = {}
        for owner, g in owners:
            shown = (
                ("yes" if g.default else "no")
                if isinstance(g.default, bool)
                else (g.default if g.default != "" else "-")
            )
            defaults.setdefault(str(shown), []).append(owner)
        text = f.metadata["help"] + " (" + "; ".join(f"{', '.join(o)}: {d}" for d, o in defaults.items()) + ")"
        text = text.replace("%", "%%")
        dest = _PREFIX + name
        if isinstance(f.default, bool):
            group.add_argument(flag(name), dest=dest, action=argparse.BooleanOptionalAction, default=None, help=text)
            continue
        choices = f.metadata.get("choices")
        metavar = None if choices else f.metadata.get("metavar") or {int: "N", float: "X"}.get(type(f.default), "TEXT")
        group.add_argument(
            flag(name), dest=dest, type=type(f.default), choices=choices, default=None, metavar=metavar, help=text
        )


def system_options(options: argparse.Namespace) -> dict[str, Any]:
    """The model's own options that were given."""
    return {k[len(_PREFIX) :]: v for k, v in vars(options).items() if k.startswith(_PREFIX) and v is not None}


def workspace(folder: Path) -> Path:
    """Where a long run that writes to ``folder`` keeps its previews and the state it resumes from."""
    return folder.with_name(folder.name + ".progress")


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
