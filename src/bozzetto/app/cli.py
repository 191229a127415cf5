"""The command line: one sub-command per file in ``commands/``; errors a user can mend are printed without a traceback.

Exit codes: 0 done; 1 a defect (traceback shown); 2 bad input or usage; 3 an optional package is missing; 4 the output
cannot be written; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Sequence

from .. import __version__
from ..errors import BozzettoError
from .progress import Progress

# Sub-command -> what `bozzetto --help` says of it. Each is `commands/<name>.py` with `configure` and `run`.
COMMANDS = {
    "image": "photo -> splats, mesh, film, viewer page",
    "text": "prompt -> splats, mesh, film, viewer page",
    "video": "video -> a sequence of splats, films, player page",
    "views": "posed pictures -> splats, mesh, film, viewer page",
    "render": "splats -> pictures or a film",
    "mesh": "splats -> textured mesh",
    "convert": "one file format -> another",
    "view": "open splats in the browser",
    "models": "which models exist, and which are on this machine",
    "train": "train lgm-mini",
    "evaluate": "measure a model on held-out objects",
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; with ``only`` just that sub-command is loaded, which keeps `--help` and start-up fast."""
    parser = argparse.ArgumentParser(
        prog="bozzetto",
        description="Photos, prompts, posed views or videos in; Gaussian splats, textured meshes, films and viewer pages out.",
        epilog="example: bozzetto image photo.png -o out/        (each command has its own --help with examples)",
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
            description=module.__doc__,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
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
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((a for a in arguments if not a.startswith("-")), None)
    options = build_parser(named if named in COMMANDS else "").parse_args(arguments)
    progress = Progress(enabled=not options.quiet)
    interrupted = _watch_interrupt()
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
        print("bozzetto: stopped; no partial output was left", file=sys.stderr)
        return 130
    finally:
        progress.clear()


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
