"""Weights from disk into a module: no code is ever run from a file, and nothing is skipped silently."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..device import begin_warm_up, end_warm_up
from ..errors import CheckpointError
from .quantized import dequantised

_SHOWN = 8  # names listed per kind of mismatch


def read_tensors(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors`` file or of a torch checkpoint (a plain or one-level nested state dict); of a training
    checkpoint with averaged weights, those.

    Args:
        device: where they are put. On the CPU those of a ``.safetensors`` file are windows into it, which must not change
            while they are in use.
        dtype: of weights that the file holds as 8-bit integers (``quantized.py``), which are multiplied out on ``device``; None
            is float32. All others have the dtype that they have in the file.

    Raises:
        CheckpointError: missing, empty or truncated file, or a pickle that holds more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; download it again")
    begin_warm_up(torch.device(device))
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            stored = load_file(path, device=str(device))
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can break the reader anywhere
            raise CheckpointError(f"{path} is not a valid safetensors file ({error}); download it again") from error
        return dequantised(stored, read_metadata(path), str(path), dtype)
    try:
        state = torch.load(path, map_location=torch.device(device), weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            begins = file.read(4)
        if not begins.startswith((b"PK", b"\x80")):  # neither a zip archive nor a pickle
            raise CheckpointError(f"{path} is no checkpoint; give a .safetensors or torch file") from error
        raise CheckpointError(
            f"{path} holds more than tensors, so loading it could run code; refused. "
            f"Ask its author for a .safetensors file. ({(str(error).splitlines() or ['damaged'])[0]})"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # torch.load lets what a damaged file provokes through: IndexError, struct.error, ...
        what = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is not a readable checkpoint ({what}); download it again") from error
    state = unwrap(state)
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise CheckpointError(f"{path} holds no state dict (a mapping from names to tensors)")
    return dict(state)


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a ``.safetensors`` file says of itself; nothing for other checkpoints.

    Raises:
        CheckpointError: it is not a valid safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a valid safetensors file ({error}); download it again") from error


def unwrap(state: object) -> object:
    """The state dict inside of a training checkpoint (one level down, under one of the usual names), or the thing itself.

    Where the moving average of all weights of the "model" lies beside them, as "ema", it is that: what the training is for.
    """
    if isinstance(state, Mapping):
        model, average = state.get("model"), state.get("ema")
        if isinstance(model, Mapping) and isinstance(average, Mapping) and model.keys() == average.keys():
            return average
        for key in ("state_dict", "model_state_dict", "model", "ema"):
            if isinstance(state.get(key), Mapping):
                return state[key]
    return state


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str, ignore: Iterable[str] = ()) -> None:
    """Copy ``state`` into ``module`` strictly; the module keeps its dtype and device.

    Args:
        source: what to call the checkpoint in messages.
        ignore: key prefixes that may be present and are not wanted (e.g. a loss network saved beside the model).

    Raises:
        CheckpointError: lists missing, unexpected and misshapen tensors; the module is then unchanged.
    """
    given = _fitting(module, state, source, ignore)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            tensor.copy_(given[key])


def place_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    ignore: Iterable[str] = (),
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Give a module that was made on the meta device its tensors, strictly, and return it frozen in evaluation mode.

    No memory is set that is overwritten later: what ``read_tensors`` put on ``device`` in the right dtype is taken as it is,
    and copied only where it is a window into a file.

    Args:
        dtype: of floating-point tensors; None takes the module's own.
        source, ignore: as for :func:`load_state`.

    Raises:
        CheckpointError: as :func:`load_state`; the module is then still without tensors.
    """
    given = _fitting(module, state, source, ignore)
    device = torch.device(device)
    placed = {}
    for key, own in module.state_dict().items():
        wanted = dtype if dtype is not None and own.is_floating_point() else own.dtype
        # The tensors of a file that is read in place would change, or be gone, with the file: their memory is not torch's own,
        # which could be resized.
        window = device.type == "cpu" and not given[key].untyped_storage().resizable()
        placed[key] = given[key].detach().to(device, wanted, copy=window)
    module.load_state_dict(placed, assign=True)
    end_warm_up(device)
    left = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if left:
        raise RuntimeError(f"no checkpoint holds {', '.join(left)} of {type(module).__name__}: set them after loading")
    return module.eval().requires_grad_(False)


def _fitting(
    module: nn.Module, state: Mapping[str, Tensor], source: str, ignore: Iterable[str]
) -> Mapping[str, Tensor]:
    """``state`` without what is ignored, if its names and shapes are the module's and its numbers are finite."""
    own = module.state_dict()
    given = {k: v for k, v in state.items() if not k.startswith(tuple(ignore))} if ignore else dict(state)
    missing = sorted(own.keys() - given.keys())
    unexpected = sorted(given.keys() - own.keys())
    both = sorted(own.keys() & given.keys())
    whole = [k for k in both if own[k].is_floating_point() and not given[k].is_floating_point()]
    misshapen = [
        f"{k} {tuple(given[k].shape)} instead of {tuple(own[k].shape)}" for k in both if own[k].shape != given[k].shape
    ]
    problems = []
    for kind, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", misshapen),
        ("of whole numbers", whole),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            problems.append(f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}")
    if problems:
        other = _other_system(own, given, source)
        raise CheckpointError(f"{source} {other or 'does not fit this network'}; {'; '.join(problems)}")
    floats = {k: given[k] for k in own if given[k].is_floating_point()}
    bad = [k for k, finite in zip(floats, _all_finite(list(floats.values()))) if not finite]
    if bad:
        raise CheckpointError(f"{source} holds NaN or infinity in {', '.join(bad[:_SHOWN])}; the file is damaged")
    return given


def _all_finite(tensors: list[Tensor]) -> list[bool]:
    """Of each tensor, whether all of its numbers are finite; the device is waited for once where all are."""
    if not tensors:
        return []
    # A sum with NaN or infinity in it is not finite. That of finite numbers may be infinite, too, and is then looked at closely.
    sums = torch.stack([t.detach().sum().float() for t in tensors]).isfinite().tolist()
    return [finite or bool(torch.isfinite(t.detach()).all()) for finite, t in zip(sums, tensors)]


def _other_system(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> str | None:
    """ "is a TripoSR checkpoint, not LGM (use --model triposr)" where both are recognised and differ, else None."""
    from .identify import recognise

    here = recognise({k: tuple(v.shape) for k, v in own.items()}, source)
    there = recognise({k: tuple(v.shape) for k, v in given.items()}, source)
    if here is None or there is None or here == there:
        return None
    return f"is {there.title}, not {here.name} ({there.advice})"
