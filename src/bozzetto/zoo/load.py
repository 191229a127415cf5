"""Find a weights file (bundled, cached, or on the Hub) and load it as a network."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path

from torch import nn

from ..errors import CheckpointError, InputError, MissingDependencyError, UnknownModelError
from .entries import ENTRIES, WeightsEntry, find_entry

_FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def bundled_path(file: str) -> Path:
    """Path of a weights file inside the installed package (it may not exist)."""
    return Path(str(resources.files("bozzetto.zoo") / "weights" / file))


def local_path(entry: WeightsEntry) -> Path | None:
    """Where the entry's file already lies on this machine, or None."""
    if entry.bundled:
        path = bundled_path(entry.file)
        return path if path.is_file() else None
    override = os.environ.get("BOZZETTO_WEIGHTS")  # a folder laid out like the hub: <repo>/<file>
    if override:
        path = Path(override) / entry.repo / entry.file
        if path.is_file():
            return path
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(entry.repo, entry.file, revision=entry.revision)
    except ValueError as error:  # HFValidationError
        raise _not_a_hub_name(entry, error) from error
    return Path(found) if isinstance(found, str) else None


def check_file(entry: WeightsEntry, path: Path, content: bool = True) -> None:
    """Raise :class:`CheckpointError` if the size or (with ``content``) the hash differs from the entry's."""
    cure = "reinstall bozzetto" if entry.bundled else "delete it and download it again"
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise CheckpointError(f"{path} has {size:,} bytes, {entry.name} has {entry.size:,}; {cure}")
    if content and entry.sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry.sha256:
            raise CheckpointError(f"{path} is damaged (its sha256 differs); {cure}")


def weights_file(name: str) -> Path:
    """The weights file of a zoo entry, downloaded from the Hugging Face Hub if it is not on this machine yet.

    Its size is checked, where it is known; so is the hash of bundled files (20 ms for lgm-mini) and of fresh downloads.

    Raises:
        UnknownModelError, MissingDependencyError (huggingface_hub), InputError (offline, with what to do instead),
        CheckpointError (a bundled file is missing, or a file is not the one it should be).
    """
    entry = find_entry(name)
    path = local_path(entry)
    if path is None and entry.bundled:
        raise CheckpointError(
            f"the bundled weights {entry.file} are missing from this installation; reinstall bozzetto"
        )
    if path is None:
        path = _download(entry)
        check_file(entry, path)
    else:
        check_file(entry, path, content=entry.bundled)
    return path


def _download(entry: WeightsEntry) -> Path:
    """Fetch the entry's file into the hub's cache; returns where it lies."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingDependencyError(
            f"{entry.name} is downloaded from the Hugging Face Hub, which needs an extra: pip install 'bozzetto[hub]'"
        ) from error
    try:
        return Path(hf_hub_download(entry.repo, entry.file, revision=entry.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"cannot download {entry.repo}/{entry.file} ({type(error).__name__}). Offline? Fetch the file on another machine "
            f"and put it at FOLDER/{entry.repo}/{entry.file}, then set BOZZETTO_WEIGHTS=FOLDER"
        ) from error
    except ValueError as error:  # HFValidationError
        raise _not_a_hub_name(entry, error) from error


def _not_a_hub_name(entry: WeightsEntry, error: ValueError) -> UnknownModelError:
    """The error for a name that the hub's client refuses to look up."""
    return UnknownModelError(
        f"unknown model {entry.name!r}: no such file, and {entry.repo} cannot be a repository of the Hugging Face Hub "
        f"({error}); known: {', '.join(ENTRIES)}"
    )


def _local_file(name: str) -> Path | None:
    """``name`` as a path where it means a file on this machine, existing or not; None where it is something else.

    "a/b/c.pt" could be both: it is a file if it exists, if the folder a/b does, or if it is written as a path (absolute,
    or beginning with "." or "~").
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # no such user
        path = Path(name)
    if os.path.isfile(path) or path.is_absolute() or name.startswith((".", "~")):
        return path
    if os.path.isdir(path.parent) and path.parent != Path():
        return path
    return path if path.suffix in _FILE_SUFFIXES and name.count("/") != 2 else None


def check_name(name: str) -> None:
    """Refuse what :func:`load` cannot load whatever the network says; opens no file and asks nobody, so it is fast.

    Raises :class:`UnknownModelError`, or :class:`CheckpointError` for a file that does not exist.
    """
    path = None if name in ENTRIES else _local_file(name)
    if path is not None and not os.path.isfile(path):
        raise CheckpointError(f"no such file: {path}; give a weights file or one of {', '.join(ENTRIES)}")
    if path is None and name not in ENTRIES and name.count("/") != 2:
        raise UnknownModelError(
            f"unknown model {name!r}; known: {', '.join(ENTRIES)}; or give a weights file ({', '.join(_FILE_SUFFIXES)}) "
            "or owner/repo/file on the Hugging Face Hub"
        )


def load(name: str, device: str = "cpu") -> nn.Module:
    """A network in evaluation mode: a zoo name, a local weights file, or "owner/repo/file" on the Hub.

    A local or foreign file is recognised by its tensors (LGM presets). The result's ``config`` says what it is.

    Raises:
        UnknownModelError: neither in the zoo nor a file nor a possible name on the Hub.
        CheckpointError: no such file, or one that is damaged or fits no network.
        InputError, MissingDependencyError: it cannot be downloaded.
    """
    from ..systems.lgm.checkpoint import load_lgm

    check_name(name)
    if name in ENTRIES:
        entry = ENTRIES[name]
        path, options = weights_file(name), entry.options
        if entry.system == "matting":
            from ..matting.u2netp import load_u2netp

            return load_u2netp().to(device)
        return load_lgm(path, **options).to(device)
    path = _local_file(name)
    if path is not None:
        return load_lgm(path).to(device)
    owner, repo, file = name.split("/")
    entry = WeightsEntry(name=name, system="lgm", file=file, repo=f"{owner}/{repo}", licence="unknown", summary="")
    return load_lgm(local_path(entry) or _download(entry)).to(device)
