"""Training state on disk: written whole or not at all, loaded without running code from the file."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, InputError
from ..files.atomic import atomic_path
from ..zoo.loading import load_state, read_tensors

_NAME = re.compile(r"checkpoint-(\d+)\.pt$")
KEEP = 2  # newest checkpoints kept; the older ones are deleted after a new one is complete


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, oldest first."""
    found = [(int(m.group(1)), p) for p in folder.glob("checkpoint-*.pt") if (m := _NAME.search(p.name))]
    return [p for _, p in sorted(found)]


def latest_checkpoint(folder: Path) -> Path | None:
    found = list_checkpoints(folder)
    return found[-1] if found else None


def save_training_state(
    folder: Path,
    step: int,
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    description: dict[str, Any],
    identity: dict[str, Any] | None = None,
) -> Path:
    """Write ``checkpoint-<step>.pt`` with model, moving average, optimiser and step; prune older ones.

    ``description`` says how the network was made; ``identity`` holds what must be equal when the run is resumed.
    """
    path = folder / f"checkpoint-{step:08d}.pt"
    state = {
        "step": step,
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "description": {**description, "identity": identity or {}},
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
    for old in list_checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def load_training_state(
    path: Path,
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    identity: dict[str, Any] | None = None,
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> int:
    """Load in place and return the step. Without ``optimizer`` only weights are taken (the averaged ones) and 0 is returned.

    ``path`` may then also be a ``.safetensors`` file of weights, and ``adapt`` makes them fit the network. The optimiser gets its
    moments from the file and keeps its own settings (weight decay and so on).

    Raises:
        CheckpointError: unreadable, or of another network.
        InputError: a value of ``identity`` differs from the one the run was started with.
    """
    if optimizer is None and path.suffix == ".safetensors":
        weights = read_tensors(path)
        weights = adapt(weights) if adapt else weights
        load_state(model, weights, str(path))
        load_state(ema, weights, str(path))
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to load it unsafely
        raise CheckpointError(f"{path} is no training checkpoint; give one of a run, or a .safetensors file") from error
    except Exception as error:
        raise CheckpointError(f"cannot read the training checkpoint {path}: {error}") from error
    missing = {"step", "model", "ema", "optimizer"} - set(state)
    if missing:
        raise CheckpointError(f"{path} is not a training checkpoint: it lacks {', '.join(sorted(missing))}")
    if optimizer is not None and identity is not None:
        _compare(path, state.get("description", {}).get("identity", {}), identity)
    if optimizer is None:
        weights = adapt(state["ema"]) if adapt else state["ema"]
        load_state(model, weights, str(path))
        load_state(ema, weights, str(path))
        return 0
    load_state(ema, state["ema"], str(path))
    load_state(model, state["model"], str(path))
    saved = state["optimizer"]
    for old, own in zip(saved["param_groups"], optimizer.param_groups):
        old.update(
            {k: v for k, v in own.items() if k != "params"}
        )  # before loading: some decide where the moments live
    optimizer.load_state_dict(saved)
    return int(state["step"])


def saved_parts(path: Path) -> int | None:
    """How many parts the batches of the run had that wrote this checkpoint; None where that cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        identity = state["description"]["identity"]
        return int(identity.get("parts", identity.get("processes", 0))) or None
    except Exception:  # whoever loads the rest of it says what is wrong
        return None


def saved_seconds(path: Path) -> float:
    """How long the run had been going, all its starts together, when it wrote this checkpoint; 0 where that is not known."""
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return float(state.get("description", {}).get("seconds", 0.0))


def _compare(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a run whose stream of batches would not be the one it was started with."""
    differing = [f"{k} was {before[k]} and is now {now[k]}" for k in now if k in before and before[k] != now[k]]
    if differing:
        raise InputError(
            f"cannot resume from {path}: {', '.join(differing)}; use the values of the first start, "
            "or another folder (its weights can be taken as a start with --init)"
        )
