"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import textwrap
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..options import MAX_REFINE_STEPS, MESH_METHODS, REFINE_STEPS, check_refine, flag
from ..pipelines import for_kind

_PREFIX = "system_"  # of the destinations of options that belong to one model
SHOWN_DEFAULT = 40  # characters of a default text in the help


def add_device(parser: argparse.ArgumentParser) -> None:
    """The --device option."""
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (auto)")


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
    """The --no-mesh and --mesh-method options."""
    parser.add_argument("--no-mesh", dest="mesh", action="store_false", help="make no mesh")
    parser.add_argument(
        "--mesh-method",
        choices=MESH_METHODS,
        default=MESH_METHODS[0],
        help="of Gaussians: fast (seconds) or nerf (by optimisation, minutes on a CPU) (fast)",
    )


def add_without(parser: argparse.ArgumentParser) -> None:
    """The --without option of commands that choose objects of dataset folders."""
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="FLAG",
        help="leave out objects with this flag, such as pieces, thin or foliage (may be given again)",
    )


def add_licences(parser: argparse.ArgumentParser) -> None:
    """The --licences option of commands that choose objects of dataset folders."""
    parser.add_argument(
        "--licences",
        metavar="NAME,...",
        help="only objects that these licences allow to use, such as CC0-1.0,CC-BY-3.0; clean: CC0, public domain, CC BY, "
        "MIT, ISC, zlib, BSD, Apache, that is no share-alike and no GPL (all)",
    )


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


def add_system_options(parser: argparse.ArgumentParser, kind: str, default_model: str, shown: str | None) -> None:
    """An argument for every option of every model that takes this kind of input; one that is not given stays None.

    Args:
        shown: the model that the command line names, if it does; the help explains its options (else the default model's)
            and only lists those of the others.
    """
    owners: dict[str, dict[str, dataclasses.Field]] = {}  # option -> model -> its field
    for pipeline in for_kind(kind):
        for f in dataclasses.fields(pipeline.options_class(kind)):
            owners.setdefault(f.name, {})[pipeline.name] = f
    models = [p.name for p in for_kind(kind)]
    told = shown if shown in models else default_model
    group = parser.add_argument_group(f"options of {told} (in brackets: the default)")
    for name, fields in owners.items():
        own = fields.get(told)
        f = own or next(iter(fields.values()))
        settings: dict[str, Any] = {"dest": _PREFIX + name, "default": None}
        settings["help"] = argparse.SUPPRESS if own is None else _help(own)
        if isinstance(f.default, bool):
            group.add_argument(flag(name), action=argparse.BooleanOptionalAction, **settings)
            continue
        if choices := list(dict.fromkeys(c for g in fields.values() for c in g.metadata.get("choices") or ())):
            # A choice that the chosen model does not have is refused later, by its options.
            settings["metavar"] = "{" + ",".join(f.metadata.get("choices") or choices) + "}"
            settings["choices"] = choices
        else:
            settings["metavar"] = f.metadata.get("metavar") or {int: "N", float: "X"}.get(type(f.default), "TEXT")
        group.add_argument(flag(name), type=type(f.default), **settings)
    others = {m: [flag(n) for n, fields in owners.items() if m in fields] for m in models if m != told}
    if others:
        width = max(len(m) for m in others) + 4
        lines = [
            textwrap.fill(
                " ".join(flags),
                min(shutil.get_terminal_size().columns, 100) - 4,
                initial_indent=f"  {m:{width - 2}s}",
                subsequent_indent=" " * width,
                break_on_hyphens=False,
            )
            for m, flags in others.items()
        ]
        parser.add_argument_group(
            "options of other models", f"explained by: {parser.prog} --model NAME --help\n" + "\n".join(lines)
        )


def _help(f: dataclasses.Field) -> str:
    """The field's help with its default in brackets, for argparse."""
    default = f.default
    if isinstance(default, bool):
        shown = "yes" if default else "no"
    elif isinstance(default, str):
        shown = textwrap.shorten(default, SHOWN_DEFAULT, placeholder=" ...") or "empty"
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{f.metadata['help']} ({shown})".replace("%", "%%")


def asset_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the public functions take of the shared options, and the model's own options that were given."""
    shared = {k: getattr(options, k) for k in ("model", "seed", "mesh", "mesh_method", "device") if hasattr(options, k)}
    own = {k[len(_PREFIX) :]: v for k, v in vars(options).items() if k.startswith(_PREFIX) and v is not None}
    return shared | {"weights": dict(options.weights)} | own


def check_output(folder: str | Path) -> None:
    """Raise :class:`OutputError` where no result folder could be written, before a long run finds that out at its end."""
    from ..errors import OutputError

    folder = place = Path(os.path.abspath(folder))
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"cannot write into {folder}: {place} is a file; give the name of a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {folder}: no permission to write in {place}")


def workspace(folder: Path) -> Path:
    """Where a long run that writes to ``folder`` keeps its previews and the state it resumes from."""
    folder = Path(os.path.abspath(folder))  # "." and ".." have no name
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


def add_refine(parser: argparse.ArgumentParser, default: int = REFINE_STEPS) -> None:
    """``--refine STEPS``."""
    parser.add_argument(
        "--refine",
        type=refine_steps,
        default=default,
        metavar="STEPS",
        help=f"steps of optimisation on the given pictures after the network, if there are several; 0 for none ({default})",
    )


def refine_steps(text: str) -> int:
    """A number of refining steps."""
    try:
        value = int(text)
        check_refine(value)
    except (ValueError, InputError):
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 to {MAX_REFINE_STEPS}, got {text!r}") from None
    return value
