"""The launches of a network's forward and backward pass as CUDA graphs: two calls of the host instead of thousands."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def graph_network(model: nn.Module, inputs: Sequence[Tensor], precision: torch.dtype | None = None) -> bool:
    """Record both passes of ``model`` for inputs of these shapes; from then on its calls in training mode replay them.

    The module stays the same object with the same parameters. A call's results and the gradients of its backward pass lie in
    memory that the next call overwrites: one forward and one backward pass at a time, and gradients that are used up or copied
    before the next backward pass (so none that add up over several). The activations keep their memory for good. Record
    before the model is wrapped for several processes.

    Args:
        inputs: what the model is called with; their content does not matter.
        precision: arithmetic of autocast, under which the model is then called too; None without.

    Returns:
        False where nothing was recorded: not on CUDA, or an operation of the model cannot be. The model is then unchanged.
    """
    if not inputs or not all(x.is_cuda for x in inputs) or not model.training:
        return False
    # Recordings and autocast's cache of cast weights exclude each other: the casts are part of the recording.
    amp = torch.autocast("cuda", precision, cache_enabled=False) if precision else contextlib.nullcontext()
    # Recording happens on a stream of its own, which PyTorch finds worth a warning in every backward pass.
    quiet = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
    if quiet is not None:
        quiet(False)
    try:
        with amp:
            torch.cuda.make_graphed_callables(model, tuple(x.detach().clone() for x in inputs))
    except RuntimeError:
        vars(model).pop("forward", None)
        torch.cuda.synchronize()
        leave_recording(inputs[0].device)
        return False
    return True


def leave_recording(device: torch.device) -> None:
    """After a recording that failed: let random numbers be drawn on ``device`` again.

    PyTorch's generator of the device is told of a recording's end only if that succeeds, and refuses to work until then. It gets
    a new state here, with the numbers of the old one.
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    numbers = generator.get_state()
    generator.graphsafe_set_state(torch.Generator(generator.device).graphsafe_get_state())
    generator.set_state(numbers)
