"""Fetch an entry's files: from the Hugging Face Hub through its client, or from an address by HTTP. Both resume."""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import BozzettoError, CheckpointError, InputError, MissingDependencyError, OutputError
from ..files.atomic import output_error
from .entry import WeightsEntry, WeightsFile
from .fetch import FetchError, fetch
from .local import cache_folder, check_one, hub_file, look, not_a_hub_name, weights_folder
from .offline import how_to_fetch

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG}
_NETWORK = ("httpx", "httpcore", "requests", "urllib3", "huggingface_hub", "hf_xet")
_RETRY = "Try again when there is a network: it goes on where it stopped."
_RETOLD = 0.2  # seconds between two reports of progress


class Meter:
    """Adds up the bytes of several files and tells of them, a few times a second at most.

    Args:
        progress: called with ("downloading NAME: 1.2 of 4.0 GB, 23 MB/s", share).
        total: bytes of all files, roughly.
    """

    def __init__(self, name: str, total: int, progress: Progress | None) -> None:
        self.name, self.total, self.progress = name, total, progress
        self.before = 0  # bytes of the files that are done
        self.now = 0  # bytes of the present one
        self._fetched, self._start, self._told = 0, time.monotonic(), 0.0

    def at(self, done: int, fresh: int) -> None:
        """``done`` bytes of the present file are there, ``fresh`` of them newly fetched since the last call."""
        self.now = done
        self._fetched += fresh
        moment = time.monotonic()
        if self.progress is None or moment - self._told < _RETOLD:
            return
        self._told = moment
        done, total = self.before + self.now, max(self.total, self.before + self.now)
        speed = self._fetched / max(moment - self._start, 1e-3)
        rate = f", {speed / 1e6:.1f} MB/s" if moment - self._start > 1 else ""
        self.progress(f"downloading {self.name}: {done / 1e9:.2f} of {total / 1e9:.2f} GB{rate}", done / max(total, 1))

    def checking(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes of a fetched file have been hashed."""
        if self.progress is not None and (done == total or time.monotonic() - self._told >= _RETOLD):
            self._told = time.monotonic()
            self.progress(f"checking {self.name}", done / max(total, 1))

    def finish(self, file: WeightsFile, size: int) -> None:
        """A file of ``size`` bytes is done; its size takes the place of the estimate."""
        self.total += size - (file.size or file.about or 0)
        self.before, self.now = self.before + size, 0


def download(entry: WeightsEntry, progress: Progress | None = None) -> Path:
    """Fetch what the entry lacks on this machine, check it, and return its file (or the folder of several).

    A folder ``BOZZETTO_WEIGHTS/<owner>/<repo>`` that holds a part of the files is completed in place; else files of the
    hub go to the hub's cache, where other programs find them, and others to our own.

    Raises:
        MissingDependencyError, InputError (no network, or the files are gone: the message holds the commands to run
        elsewhere), OutputError (disk full, no permission), CheckpointError (what came is not what was published).
    """
    present = look(entry)
    chosen = weights_folder()
    own = chosen / entry.folder if chosen else None
    completing = present.folder if own is not None and present.folder == own and os.access(own, os.W_OK) else None
    missing = present.missing if completing else entry.files
    meter = Meter(entry.name, sum(f.size or f.about or 0 for f in missing), progress)
    if entry.url:
        folder = completing or cache_folder() / entry.folder
        _check_space(entry, folder, meter.total)
        for file in missing:
            _fetch_url(entry, file, folder, meter)
        return folder / entry.file if entry.single else folder
    return _fetch_hub(entry, missing, completing, meter)


def _fetch_url(entry: WeightsEntry, file: WeightsFile, folder: Path, meter: Meter) -> None:
    """One file from the entry's address into the folder, checked."""
    target = folder / file.path
    if target.is_file():  # of several files, one fetched before
        with contextlib.suppress(CheckpointError):
            check_one(entry, file, target, content=False)
            return meter.finish(file, target.stat().st_size)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(
            f"cannot download {entry.name} (HF_HUB_OFFLINE is set). {_RETRY} {how_to_fetch(entry, [file])}"
        )
    try:
        fetch(f"{entry.url}{file.path}", target, file.size, file.sha256, meter.at)
    except FetchError as error:
        raise InputError(
            f"cannot download {entry.url}{file.path} ({error}). {_RETRY} {how_to_fetch(entry, [file])}"
        ) from error
    meter.finish(file, target.stat().st_size)


def _fetch_hub(entry: WeightsEntry, files: tuple[WeightsFile, ...], into: Path | None, meter: Meter) -> Path:
    """Files of the entry from the hub into its client's cache, or ``into`` a folder; checked."""
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise MissingDependencyError(
            f"{entry.name} is downloaded from the Hugging Face Hub, which needs an extra: pip install 'bozzetto[hub]'. "
            f"{how_to_fetch(entry, files)}"
        ) from error
    _check_space(entry, into or Path(constants.HF_HUB_CACHE), meter.total - _cached(entry, files, into))
    revision, root = entry.revision, into
    with _quiet_hub():
        for file in files:
            place, revision = _hub_file(entry, file, revision, into, meter)
            if place is not None:
                check_one(entry, file, place, tell=meter.checking)
                meter.finish(file, place.stat().st_size)
                root = into or place.parents[len(Path(file.path).parts) - 1]
    assert root is not None  # an entry has at least one file that is not optional
    return root / entry.file if entry.single else root


def _hub_file(
    entry: WeightsEntry, file: WeightsFile, revision: str | None, into: Path | None, meter: Meter
) -> tuple[Path | None, str | None]:
    """One file from the hub: where it lies (None: optional and not there), and the revision that the hub knows."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

    keywords: dict[str, Any] = {}
    if entry.repo_type != "model":
        keywords["repo_type"] = entry.repo_type
    if into is not None:
        keywords["local_dir"] = into
    if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        keywords["tqdm_class"] = _bar(meter)
    try:
        return Path(hf_hub_download(entry.repo, file.path, revision=revision, **keywords)), revision
    except RevisionNotFoundError:
        if revision is None:
            raise
        return _hub_file(entry, file, None, into, meter)  # the repository was rewritten; sizes and hashes still hold
    except BozzettoError:
        raise
    except Exception as error:
        if file.optional and isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None, revision
        raise _explained(entry, file, error, into) from error


def _explained(entry: WeightsEntry, file: WeightsFile, error: Exception, into: Path | None) -> Exception:
    """The package's error for one that the hub's client raised; what is a defect of ours stays as it is."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    what = f"cannot download {entry.repo}/{file.path}"
    if isinstance(error, OSError) and error.errno in _DISK:
        return output_error(error.filename or into or constants.HF_HUB_CACHE, error)
    if isinstance(error, HFValidationError):
        return not_a_hub_name(entry, error)
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{what}: its authors ask you to accept their terms first, at {entry.hub_page}; then run `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"{what}: the hub has no such repository, or it is private (then run `hf auth login`). If you have the files, "
            f"put them into FOLDER/{entry.folder} and set BOZZETTO_WEIGHTS=FOLDER"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return InputError(f"{what}: the repository has no such file (any more); see {entry.hub_page}")
    ours = type(error).__module__.partition(".")[0]
    if isinstance(error, (OSError, RuntimeError)) or ours.startswith(_NETWORK):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"no network? {type(error).__name__}"
        return InputError(f"{what} ({why}). {_RETRY} {how_to_fetch(entry)}")
    return error


def _cached(entry: WeightsEntry, files: tuple[WeightsFile, ...], into: Path | None) -> int:
    """Bytes of the files that the hub's cache holds already."""
    if into is not None:
        return 0
    found = (hub_file(entry, f.path) for f in files)
    return sum(path.stat().st_size for path in found if path is not None)


def _check_space(entry: WeightsEntry, folder: Path, size: int) -> None:
    """Raise :class:`OutputError` before anything is fetched if the disk has no room for ``size`` bytes."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(place).free
        if free < size:
            raise OutputError(
                f"{entry.name} needs {size / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; make room, or set "
                f"{'BOZZETTO_CACHE' if entry.url else 'HF_HOME'} to a folder on another disk"
            )


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub's client from printing hints and retries between our progress lines."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _bar(meter: Meter) -> type:
    """A progress bar class for the hub's client that draws nothing and reports to the meter."""
    from tqdm import tqdm

    class Bar(tqdm):
        """Counts only the bytes of the file; the client may open other bars (for transfers) beside it."""

        def __init__(self, *args: Any, **keywords: Any) -> None:
            self.ours = int(keywords.get("initial") or 0)
            keywords.pop("name", None)
            super().__init__(*args, **{**keywords, "file": io.StringIO(), "disable": True})
            meter.at(self.ours, 0)

        def update(self, n: float | None = 1) -> None:
            self.ours += int(n or 0)
            meter.at(self.ours, int(n or 0))

    return Bar
