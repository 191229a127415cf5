"""Find weights (given, bundled, cached, or by download), and load an entry as a network."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnknownModelError
from .download import download
from .entries import ENTRIES, WeightsEntry, WeightsFile, find_entry
from .identify import Kind, describe, identify, read_shapes, system_of
from .local import bundled_path, check_file, local_path

__all__ = ["bundled_path", "check_file", "check_name", "identify_file", "load", "local_path", "locate", "weights_file"]

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)
_FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# System -> what loads an entry of it on its own. Shap-E and GaussianDreamer put several entries together themselves.
LOADERS = {
    "lgm": "bozzetto.systems.lgm.checkpoint:load_lgm",
    "matting": "bozzetto.matting.u2netp:load_u2netp",
    "triposr": "bozzetto.systems.triposr.checkpoint:load_triposr",
    "l4gm": "bozzetto.systems.l4gm.checkpoint:load_l4gm",
    "mvdream": "bozzetto.systems.mvdream.checkpoint:load_mvdream",
}


def locate(name: str, override: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """Where the weights of an entry are: its file, or for an entry of several the folder that holds them.

    Looked for in this order: ``override``, the package, ``BOZZETTO_WEIGHTS/<owner>/<repo>/<file>``, the hub's cache (or
    our own, for files that are not on the hub), and last the network. Sizes are checked, where they are known; so are the
    hashes of bundled files (20 ms for lgm-mini) and of fresh downloads.

    Args:
        name: of the entry.
        override: a file or folder to use instead; it is taken as it is.
        progress: called with (what is being done, share done 0..1).

    Raises:
        UnknownModelError: no such entry.
        MissingDependencyError: huggingface_hub is needed and not installed.
        InputError: the files are not here and cannot be fetched; the message holds the commands to run elsewhere.
        OutputError: they cannot be written (disk full, no permission).
        CheckpointError: the override does not exist, or a file is not the one it should be.
    """
    entry = find_entry(name)
    if override is not None:
        path = Path(os.path.expanduser(override))
        if not path.exists():
            raise CheckpointError(f"no such file or folder: {path}, given as the weights of {name}; check the path")
        return path
    path = local_path(entry)
    if path is not None:
        check_file(entry, path, content=entry.bundled)
        return path
    if entry.bundled:
        raise CheckpointError(
            f"the bundled weights {entry.file} are missing from this installation; reinstall bozzetto"
        )
    return download(entry, progress)


def weights_file(name: str) -> Path:
    """The weights file (or folder) of a zoo entry, downloaded if it is not on this machine yet; see :func:`locate`."""
    return locate(name)


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
    if path is not None and os.path.isdir(path):
        raise CheckpointError(
            f"{path} is a folder; give a weights file in it, or the folder in place of an entry: --weights NAME={path} "
            "(in Python weights={NAME: folder}, or load(NAME, override=folder))"
        )
    if path is not None and not os.path.isfile(path):
        raise CheckpointError(f"no such file: {path}; give a weights file or one of {', '.join(ENTRIES)}")
    if path is None and name not in ENTRIES and name.count("/") != 2:
        raise UnknownModelError(
            f"unknown model {name!r}; known: {', '.join(ENTRIES)}; or give a weights file ({', '.join(_FILE_SUFFIXES)}) "
            "or owner/repo/file on the Hugging Face Hub"
        )


def load(name: str, device: str = "cpu", override: str | os.PathLike[str] | None = None) -> Any:
    """A network in evaluation mode: a zoo name, a local weights file, or "owner/repo/file" on the Hub.

    What a local or foreign file is, its tensors tell. The ``config`` of an LGM says which preset it is.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        override: a file or folder to use instead of the entry ``name``'s own, of any size.

    Returns:
        lgm-*: :class:`bozzetto.systems.lgm.network.LGM`; triposr: ``systems.triposr.network.TripoSR``;
        l4gm-*: ``systems.l4gm.network.L4GM``; mvdream, imagedream: ``systems.mvdream.diffusion.MultiViewDiffusion``;
        u2netp: ``matting.u2netp.U2NetP``. The parts of Shap-E and of GaussianDreamer are no networks on their own.

    Raises:
        UnknownModelError: neither in the zoo nor a file nor a possible name on the Hub, or a part of a larger model.
        CheckpointError: no such file, or one that is damaged or fits no network.
        InputError, MissingDependencyError: it cannot be downloaded.
    """
    check_name(name)
    if name in ENTRIES:
        entry = ENTRIES[name]
        if entry.system not in LOADERS:
            loadable = [e.name for e in ENTRIES.values() if e.system in LOADERS]
            raise UnknownModelError(
                f"{name} is one part of a model and is no network on its own; known networks: {', '.join(loadable)}"
            )
        options = {k: v for k, v in entry.options.items() if override is None or k != "preset_name"}
        return _load_with(LOADERS[entry.system], locate(name, override), device, options)
    path = _own_file(name)
    system = system_of(path)
    if system is None:
        system = "lgm"  # its loader says what is wrong
    if system not in LOADERS:
        raise CheckpointError(f"{path} is {describe(path)}, which is no network on its own")
    return _load_with(LOADERS[system], path, device, {})


def _own_file(name: str) -> Path:
    """The file that a name outside of the zoo means: one on this machine, or "owner/repo/file" from the hub."""
    path = _local_file(name)
    if path is not None:
        return path
    owner, repo, file = name.split("/")
    entry = WeightsEntry(
        name=name, system="", files=(WeightsFile(file),), repo=f"{owner}/{repo}", licence="unknown", summary=""
    )
    return local_path(entry) or download(entry)


def identify_file(name: str) -> tuple[Kind, Path]:
    """What a weights file is, and where: its kind names the zoo entry in whose place it can stand (``kind.entry``).

    Args:
        name: a local file, or "owner/repo/file" on the Hub.

    Raises:
        CheckpointError: no such file, or its tensors are those of no known network.
    """
    check_name(name)
    path = _own_file(name)
    return identify(read_shapes(path), str(path)), path


def _load_with(loader: str, path: Path, device: str, options: dict[str, str]) -> Any:
    """Call the loader "module:function" with the path; the network ends on ``device``."""
    module, function = loader.split(":")
    call = getattr(importlib.import_module(module), function)
    if "device" in inspect.signature(call).parameters:
        return call(path, device=device, **options)
    return call(path, **options).to(device)
