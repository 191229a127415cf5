"""Output that is either whole or absent: temporary files and folders moved into place at the end.

A temporary lives in the same folder as its target, so the final move is a rename within one file system, and is removed
on every exception, Ctrl-C included.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from ..errors import OutputError

PREFIX = ".bozzetto-"


def output_error(path: str | PathLike[str], error: OSError) -> OutputError:
    """The :class:`OutputError` for an ``OSError`` met while writing ``path``: what is wrong and what to do."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space or choose another folder",
        errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
        errno.EACCES: "permission denied; choose a folder you may write to",
        errno.EPERM: "permission denied; choose a folder you may write to",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.EFBIG: "the file is larger than the system allows; choose another folder or a smaller size",
        errno.EISDIR: "it is a folder; give a file name",
        errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
        errno.EEXIST: "a file stands where a folder is needed; choose another path",
        errno.ENOENT: "the folder cannot be created; choose another one",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }
    reason = reasons.get(error.errno) or f"{error.strerror or error}; choose another place"
    return OutputError(f"cannot write {os.fspath(path)}: {reason}")


def _make_parent(path: Path) -> list[Path]:
    """Create the parent folders of ``path``; returns the ones that were missing, deepest first."""
    missing = []
    folder = path.parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # gone already, or somebody put a file there
            folder.rmdir()


def _temporary_name(folder: Path, suffix: str = "") -> Path:
    # Not tempfile's: its files are private to the user, these must get the permissions of any new file.
    return folder / f"{PREFIX}{secrets.token_hex(6)}{suffix}"


@contextlib.contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary file path that becomes ``path`` when the block ends well and vanishes when it does not.

    The temporary has the suffix of ``path`` (encoders choose their format by it) and exists, empty, when the block
    starts. Missing parent folders are created, and removed again on failure. An existing ``path`` is replaced only
    at the end; if it is a link, the file it points to is replaced.

    Raises:
        OutputError: the file cannot be written (no permission, disk full, is a folder). Any ``OSError`` of the block
            that names no other file counts as such.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    created: list[Path] = []
    temporary: Path | None = None
    try:
        if target.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        created = _make_parent(target)
        # A short stem keeps names near the file system's limit writable.
        temporary = _temporary_name(target.parent, target.suffix)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with contextlib.suppress(OSError):  # file systems without permissions
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o777)
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        _remove_empty(created)
        if isinstance(error, OSError) and _about_output(error, target):
            raise output_error(path, error) from error
        raise


def _about_output(error: OSError, target: Path) -> bool:
    """Whether an ``OSError`` concerns the output rather than, say, a missing input file opened inside the block."""
    if error.filename is None:
        return error.errno is not None
    with contextlib.suppress(TypeError, ValueError):
        name = Path(os.fsdecode(error.filename))
        # Parents of the target (a file in the way), the target itself, and temporaries beside it.
        return name == target or name in target.parents or name.parent == target.parent or name.name == target.name
    return False


def atomic_write_bytes(path: str | PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends, whole or not at all."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def output_folder(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary folder whose files move into the folder ``path`` when the block ends well.

    The results of a job are written into the yielded folder (sub-folders allowed); on any exception, Ctrl-C included,
    it is removed and ``path`` is as it was before, not even created. Files that were in ``path`` before stay; those of
    the same name are replaced at the end.

    Raises:
        OutputError: the folder cannot be written, or a file stands where a folder is needed or the reverse.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    created: list[Path] = []
    temporary: Path | None = None
    try:
        if target.exists() and not target.is_dir():
            raise OutputError(f"cannot write into {path}: it is a file; give the name of a folder")
        created = _make_parent(target)
        if not target.exists():
            created.insert(0, target)
        # Inside an existing folder, beside a new one: both are on the target's file system.
        temporary = _temporary_name(target if target.exists() else target.parent)
        temporary.mkdir()
        yield temporary
        _move_into(temporary, target, path)
        shutil.rmtree(temporary)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(created)
        if isinstance(error, OSError) and _about_output_folder(error, target, temporary):
            raise output_error(path, error) from error
        if isinstance(error, OutputError) and temporary is not None and str(temporary) in str(error):
            # A writer inside the block named the hidden folder, which means nothing to the user.
            raise OutputError(str(error).replace(str(temporary), str(path))) from error
        raise


def _about_output_folder(error: OSError, target: Path, temporary: Path | None) -> bool:
    if error.filename is None or _about_output(error, target):
        return error.errno is not None
    name = Path(os.fsdecode(error.filename))
    return target in name.parents or (temporary is not None and (name == temporary or temporary in name.parents))


def _move_into(source: Path, target: Path, shown: Path) -> None:
    """Move every file under ``source`` to its place under ``target``; conflicts are found before the first move."""
    files = sorted(p for p in source.rglob("*") if not p.is_dir())
    folders = sorted(p for p in source.rglob("*") if p.is_dir())
    for p in files:
        if (target / p.relative_to(source)).is_dir():
            raise OutputError(
                f"cannot write {shown / p.relative_to(source)}: a folder of that name is there; remove it"
            )
    for p in folders:
        place = target / p.relative_to(source)
        if place.exists() and not place.is_dir():
            raise OutputError(
                f"cannot write into {shown / p.relative_to(source)}: a file of that name is there; remove it"
            )
    target.mkdir(exist_ok=True)
    for p in folders:
        (target / p.relative_to(source)).mkdir(exist_ok=True)
    for p in files:
        os.replace(p, target / p.relative_to(source))
