"""Opening a file that a user named: the checks that every reader shares."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from ..errors import InputError


def check_input(path: str | PathLike[str], what: str, error: type[InputError]) -> Path:
    """``path`` as a Path to a readable, non-empty file.

    Args:
        what: what the file should be, with its article ("a picture"), for the message.
        error: the class of error to raise when the file is missing, a folder, empty or not readable.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"{path} does not exist; check the name and the folder") from None
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read: {problem}") from problem
    if path.is_dir():
        raise error(f"{path} is a folder; give the path of {what}")
    if not path.is_file():
        raise error(f"{path} is not a regular file; give the path of {what}")
    if size == 0:
        raise error(f"{path} is empty (0 bytes); it should be {what}")
    if not os.access(path, os.R_OK):
        raise error(f"{path} cannot be read: permission denied; change its permissions or copy it")
    return path


def read_input(path: str | PathLike[str], what: str, error: type[InputError]) -> bytes:
    """The bytes of a file, after the checks of :func:`check_input`."""
    path = check_input(path, what, error)
    try:
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from problem
