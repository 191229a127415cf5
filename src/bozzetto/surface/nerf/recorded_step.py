"""A training step as a CUDA graph: its hundred launches recorded once, then replayed in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

EAGER_CALLS = 3  # kernels get compiled, the optimiser its state


class RecordedStep:
    """A step (forward, backward, optimiser) that is recorded after a few calls; call it as the function itself.

    The function must take tensors of the same shapes in every call, return nothing, not wait for the device, set its gradients
    to None before it computes them, and draw no random numbers. On the CPU, and where recording fails, every call is eager.

    Attributes:
        reason: why calls are eager though on CUDA, or None.
    """

    def __init__(self, step: Callable[..., None], device: torch.device) -> None:
        self.step, self.calls, self.reason = step, 0, None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *inputs: Tensor) -> None:
        if self.stream is None:
            self.step(*inputs)
            return
        if self.graph is None and self.reason is None and self.calls >= EAGER_CALLS:
            self._record(inputs)
        self.calls += 1
        if self.graph is not None:
            torch._foreach_copy_(self.inputs, list(inputs))
            self.graph.replay()
            return
        # On the stream of the recording, to which autograd ties the parameters' gradients.
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            self.step(*inputs)
        current.wait_stream(self.stream)

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [t.clone() for t in inputs]
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self.stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.step(*self.inputs)
                finally:
                    graph.capture_end()
            self.graph = graph
        except RuntimeError as error:
            self.reason = f"the step cannot be recorded: {error}"
            warnings.warn(f"slower than it could be: {self.reason}", RuntimeWarning, stacklevel=3)
        current.wait_stream(self.stream)


def release_memory(device: torch.device) -> None:
    """Give back the memory of recorded steps that are gone: PyTorch lends it to nothing else until memory runs out."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
