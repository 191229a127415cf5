"""Several inputs in one command: a result folder for each, and one that fails does not stop the others."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import BozzettoError
from .progress import Progress


def folders(names: Sequence[str], output: str) -> list[Path]:
    """One result folder per name: ``output`` itself for one, ``output/<name>`` for several, made unique by a number.

    Names that differ in case only count as the same: they are one folder on Windows and on most Macs.
    """
    if len(names) == 1:
        return [Path(output)]
    taken: set[str] = set()
    out = []
    for stem in names:
        name, number = stem, 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(key)
        out.append(Path(output) / name)
    return out


def slug(text: str, length: int = 40) -> str:
    """A prompt as a folder's name: its words, in any script, joined by "_"."""
    # Vowel signs and accents (categories M*) belong to words, though not to \w.
    letters = (c if c == "_" or c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return "_".join("".join(letters).split())[:length].strip("_") or "prompt"


def run_each(
    inputs: Sequence[str], targets: Sequence[Path], work: Callable[[str, Path], None], progress: Progress
) -> int:
    """``work(input, folder)`` for each; returns the exit code of the last failure, or 0. A single input's error is raised."""
    code = 0
    for given, folder in zip(inputs, targets):
        try:
            work(given, folder)
        except BozzettoError as error:
            if len(inputs) == 1:
                raise
            progress.clear()
            print(f"bozzetto: {given}: {error}", file=sys.stderr)
            code = error.exit_code
    return code
