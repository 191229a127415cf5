"""Tensors that stay where they are: a batch that others are copied into, gradients that lie in one vector, cast weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

STEP = 32  # numbers: every gradient begins at a multiple of them


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in dictionaries, sequences and dataclasses, in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for key in value for t in tensors_in(value[key])]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in tensors_in(item)]
    if is_dataclass(value) and not isinstance(value, type):
        return [t for f in fields(value) for t in tensors_in(getattr(value, f.name))]
    return []


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(v) for v in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _copied(getattr(value, f.name)) for f in fields(value)})
    return value


class StaticBatch:
    """A copy of a batch whose tensors keep their addresses; ``value`` is used in place of the batches that are :meth:`take`\\ n.

    What is no tensor must be the same in all batches.
    """

    def __init__(self, batch: Any) -> None:
        self.value = _copied(batch)
        self._tensors = tensors_in(self.value)

    def take(self, batch: Any) -> None:
        """Copy the tensors of ``batch``; :class:`ValueError` if they have other shapes."""
        new = tensors_in(batch)
        if [t.shape for t in new] != [t.shape for t in self._tensors]:
            raise ValueError("the batches of a recorded step must all have the shapes of the first one")
        for own, other in zip(self._tensors, new):
            own.copy_(other, non_blocking=True)


class FlatGradients:
    """Gradients of parameters as views of one vector, so that one operation exchanges or clips all of them.

    Attributes:
        parameters: those that need a gradient.
        vector: all gradients, one behind the other, each in the order of its parameter's memory.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        places, size = [], 0
        for p in self.parameters:
            places.append(size)
            size += -(-p.numel() // STEP) * STEP
        self.vector = torch.zeros(size, device=self.parameters[0].device, dtype=self.parameters[0].dtype)
        self.views = []
        for p, place in zip(self.parameters, places):
            dense = torch.empty_like(p)  # the memory format of the parameter, without gaps
            self.views.append(self.vector.as_strided(p.shape, dense.stride(), place))
            p.grad = self.views[-1]

    @torch.no_grad()
    def take(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy the gradients of :attr:`parameters`; None is zero."""
        self.vector.zero_()  # what lies between the gradients too, which a clipped vector of NaN leaves NaN
        alike: dict[tuple, list[tuple[Tensor, Tensor]]] = {}  # of one dtype and layout: one launch for many
        for view, gradient in zip(self.views, gradients):
            if gradient is not None:
                alike.setdefault((gradient.dtype, view.stride() == gradient.stride()), []).append((view, gradient))
        for pairs in alike.values():
            torch._foreach_copy_([v for v, _ in pairs], [g for _, g in pairs])


class CastWeights:
    """Copies of a network's weights in the dtype to which autocast would bring each of them on its own.

    Args:
        network: whose convolutions and linear layers are meant. Their biases and all else stay as they are.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        kinds = (nn.Conv2d, nn.Linear)
        self._owners = [m for m in network.modules() if isinstance(m, kinds) and m.weight.requires_grad]
        self._weights = [m.weight for m in self._owners]
        self._copies = [w.detach().to(dtype).requires_grad_() for w in self._weights]
        self._of = {id(w): c for w, c in zip(self._weights, self._copies)}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Bring the copies up to date and let the layers use them, inside."""
        with torch.no_grad():
            torch._foreach_copy_(self._copies, self._weights)
        try:
            for owner, copy in zip(self._owners, self._copies):
                owner._parameters["weight"] = copy
            yield
        finally:
            for owner, weight in zip(self._owners, self._weights):
                owner._parameters["weight"] = weight

    def leaf(self, parameter: nn.Parameter) -> Tensor:
        """What stands for the parameter in the graph of the operations: its copy, or itself."""
        return self._of.get(id(parameter), parameter)
