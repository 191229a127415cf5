"""The command line: one sub-command per file in ``commands/``; errors a user can mend are printed without a traceback.

Exit codes: 0 done; 1 a defect (traceback shown); 2 bad input or usage; 3 an optional package is missing; 4 the output
cannot be written; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..errors import BozzettoError
from .progress import Progress

# Sub-command -> what `bozzetto --help` says of it. Each is `commands/<name>.py` with `configure` and `run`.
COMMANDS = {
    "image": "photo -> splats, mesh, film, viewer page",
    "text": "prompt -> splats, mesh, film, viewer page",
    "video": "video -> a sequence of splats, films, player page",
    "views": "posed pictures -> splats, mesh, film, viewer page",
    "fit": "posed pictures -> splats, by optimisation",
    "render": "splats -> pictures or a film",
    "mesh": "splats -> textured mesh",
    "convert": "one file format -> another",
    "view": "open splats in the browser",
    "models": "which models exist, and which are on this machine",
    "data": "collections of 3D objects: fetch, pack, look at, check",
    "train": "train lgm-mini",
    "evaluate": "measure a model on held-out objects",
}


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments; the usage is in --help."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: object = None) -> tuple:
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def _known(self, argument: str) -> bool:
        return bool(self._get_option_tuples(argument)) or argument.partition("=")[0] in self._option_string_actions

    def error(self, message: str) -> NoReturn:
        if "required: P" in message and any(a.startswith("-") and not self._known(a) for a in self._given):
            message += " (put -- before one that begins with a dash)"
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser(only: str | None = None, model: str | None = None) -> argparse.ArgumentParser:
    """The parser; with ``only`` just that sub-command is loaded, which keeps `--help` and start-up fast.

    ``model``: whose options the help of a sub-command explains.
    """
    parser = Parser(
        prog="bozzetto",
        description="Photos, prompts, posed views or videos in; Gaussian splats, textured meshes, films and viewer pages out.",
        epilog="example: bozzetto image photo.png -o out/ (each command's own --help has more)",
    )
    parser.add_argument("--version", action="version", version=f"bozzetto {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if only is not None and name != only:
            commands.add_parser(name, help=summary)
            continue
        module = importlib.import_module(f".commands.{name}", __package__)
        sub = commands.add_parser(
            name,
            help=summary,
            description=_filled(module.__doc__ or ""),
            epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if "model" in inspect.signature(module.configure).parameters:
            module.configure(sub, model)
        else:
            module.configure(sub)
        sub.add_argument(
            "-q",
            "--quiet",
            action="store_true",
            help="no progress and no summary: only errors, and what `models` lists",
        )
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Read when torch is loaded. Its threads would go on spinning after every operation, on the cores that our own threads
    # (rasterizer, encoder) and other programs want: on two busy cores `bozzetto image` then takes three times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((a for a in arguments if not a.startswith("-")), None)
    options = build_parser(named if named in COMMANDS else "", _named_model(arguments)).parse_args(arguments)
    progress = Progress(enabled=not options.quiet)
    interrupted = _watch_interrupt()
    shown = warnings.showwarning
    warnings.showwarning = _notes(progress, shown)
    try:
        return options.run(options, progress) or 0
    except BozzettoError as error:
        progress.clear()
        print(f"bozzetto: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except BaseException as error:
        # Compiled code may turn the interrupt into another exception (SystemError, for one).
        if not isinstance(error, KeyboardInterrupt) and not interrupted:
            raise
        progress.clear()
        kept = f"; {options.resumes}" if getattr(options, "resumes", None) else ""
        print(f"bozzetto: stopped; no partial output was left{kept}", file=sys.stderr)
        return 130
    finally:
        progress.clear()
        warnings.showwarning = shown


def _filled(text: str) -> str:
    """The paragraphs of a docstring, as wide as the terminal but for long lines' sake at most 100 characters."""
    width = min(shutil.get_terminal_size().columns, 102) - 2
    return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in text.strip().split("\n\n"))


def _notes(progress: Progress, usual: Callable[..., None]) -> Callable[..., None]:
    """A ``warnings.showwarning`` that shows what this package tells users as one plain line, and the rest as usual."""

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: object) -> None:
        progress.clear()
        if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
            print(f"bozzetto: note: {message}", file=sys.stderr)
        else:
            usual(message, category, filename, lineno, *more)

    return show


def _named_model(arguments: Sequence[str]) -> str | None:
    """What follows ``--model``, before the arguments are parsed."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--model="):
            return argument.partition("=")[2]
        if argument == "--model" and i + 1 < len(arguments):
            return arguments[i + 1]
    return None


def _watch_interrupt() -> list[int]:
    """A list that is empty until Ctrl-C is pressed; Ctrl-C still raises KeyboardInterrupt."""
    pressed: list[int] = []

    def handle(number: int, frame: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    # Only the main thread may set handlers; one that was set to be ignored stays so.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handle)
    return pressed


if __name__ == "__main__":
    raise SystemExit(main())
