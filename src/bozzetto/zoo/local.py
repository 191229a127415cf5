"""Where an entry's files are on this machine: in the package, in ``BOZZETTO_WEIGHTS``, in the hub's cache, in our own."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..errors import CheckpointError, UnknownModelError
from .entry import WeightsEntry, WeightsFile

Tell = Callable[[int, int], None]  # (bytes done, bytes in all)
_BLOCK = 1 << 20


def bundled_path(file: str) -> Path:
    """Path of a weights file inside the installed package (it may not exist)."""
    return Path(str(resources.files("bozzetto.zoo") / "weights" / file))


def weights_folder() -> Path | None:
    """The folder ``BOZZETTO_WEIGHTS`` (laid out like the hub: owner/repo/file), or None where it is not set."""
    folder = os.environ.get("BOZZETTO_WEIGHTS")
    return Path(folder).expanduser() if folder else None


def cache_folder() -> Path:
    """Where files that are not on the hub are downloaded to: ``BOZZETTO_CACHE``, or the platform's place for caches."""
    chosen = os.environ.get("BOZZETTO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "bozzetto" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "bozzetto"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bozzetto"


def hub_file(entry: WeightsEntry, path: str) -> Path | None:
    """A file of the entry in the hub's cache, at the entry's revision or else the newest one there; None if absent."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for revision in dict.fromkeys((entry.revision, None)):
        try:
            found = try_to_load_from_cache(entry.repo, path, revision=revision, repo_type=entry.repo_type)
        except ValueError as error:  # HFValidationError
            raise not_a_hub_name(entry, error) from error
        if isinstance(found, str):
            return Path(found)
    return None


def not_a_hub_name(entry: WeightsEntry, error: ValueError) -> UnknownModelError:
    """The error for a name that the hub's client refuses to look up."""
    from .entries import ENTRIES

    return UnknownModelError(
        f"unknown model {entry.name!r}: no such file, and {entry.repo} cannot be a repository of the Hugging Face Hub "
        f"({error}); known: {', '.join(ENTRIES)}"
    )


def places(entry: WeightsEntry) -> Iterator[Path]:
    """Folders that may hold the entry's files at their published paths, in the order in which they count."""
    if entry.bundled:
        yield bundled_path(entry.file).parent
        return
    if folder := weights_folder():
        yield folder / entry.folder
    if entry.repo:
        for file in entry.files:
            found = hub_file(entry, file.path)
            if found is not None:  # .../snapshots/<commit>/<path>
                yield found.parents[len(Path(file.path).parts) - 1]
                break
    if entry.url:
        yield cache_folder() / entry.folder


@dataclass(frozen=True)
class Presence:
    """What of an entry is on this machine.

    Attributes:
        entry: the entry.
        folder: the folder that holds the most of its files, or None where there are none at all.
        missing: files that are needed and not in ``folder``.
    """

    entry: WeightsEntry
    folder: Path | None
    missing: tuple[WeightsFile, ...]

    @property
    def complete(self) -> bool:
        """Whether every needed file is there."""
        return self.folder is not None and not self.missing

    @property
    def state(self) -> str:
        """ "bundled", "here", "partly" or "missing"."""
        if self.complete:
            return "bundled" if self.entry.bundled else "here"
        return "missing" if self.folder is None else "partly"

    @property
    def path(self) -> Path | None:
        """The file (entries of one file) or the folder, where it is complete."""
        if not self.complete or self.folder is None:
            return None
        return self.folder / self.entry.file if self.entry.single else self.folder


def look(entry: WeightsEntry) -> Presence:
    """Where the entry's files are: the first place that holds all of them, else the one that holds the most."""
    needed = [f for f in entry.files if not f.optional]
    best = Presence(entry, None, tuple(needed))
    for folder in places(entry):
        missing = tuple(f for f in needed if not (folder / f.path).is_file())
        if len(missing) < len(best.missing):
            best = Presence(entry, folder, missing)
        if best.complete:
            break
    return best


def local_path(entry: WeightsEntry) -> Path | None:
    """Where the entry's file (or, of several, their folder) already lies on this machine, or None."""
    return look(entry).path


def sha256_of(path: Path, tell: Tell | None = None) -> str:
    """The hash of a file's content, in lower-case hex; ``tell`` hears of the progress."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if tell is not None:
                tell(done, total)
    return digest.hexdigest()


def check_file(entry: WeightsEntry, path: Path, content: bool = True, tell: Tell | None = None) -> None:
    """Check the entry's file at ``path``, or the files in the folder ``path`` of an entry of several.

    Raises :class:`CheckpointError` if a size or (with ``content``) a hash differs from the published one.
    """
    for file in entry.files:
        place = path if entry.single else path / file.path
        if not file.optional or place.is_file():
            check_one(entry, file, place, content, tell)


def check_one(
    entry: WeightsEntry, file: WeightsFile, path: Path, content: bool = True, tell: Tell | None = None
) -> None:
    """Check one file of the entry: its size and (with ``content``) its hash, as far as they are known."""
    cure = "reinstall bozzetto" if entry.bundled else "delete it and download it again"
    size = path.stat().st_size
    name = entry.name if entry.single else f"{entry.name}'s {file.path}"
    if file.size is not None and size != file.size:
        own = "" if entry.bundled else f" (weights of your own are given with --weights {entry.name}=PATH)"
        raise CheckpointError(f"{path} has {size:,} bytes, {name} has {file.size:,}; {cure}{own}")
    if content and file.sha256 is not None and sha256_of(path, tell) != file.sha256:
        raise CheckpointError(f"{path} is damaged (its sha256 differs); {cure}")
