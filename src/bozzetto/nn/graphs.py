"""CUDA graphs: the launches of an inference function recorded once per input shape, then replayed in one call.

The first call with new shapes runs eagerly (kernels get compiled, libraries pick theirs); the second records and replays;
later ones replay. On the CPU, and where recording is impossible, every call is eager.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_streams: dict[int, torch.cuda.Stream] = {}  # device index -> the stream on which graphs are recorded


_of_modules: WeakKeyDictionary[nn.Module, Captured] = WeakKeyDictionary()


def captured(module: nn.Module) -> Captured:
    """The module's one :class:`Captured`, which goes with the module and notices when parameters are replaced."""
    if module not in _of_modules:
        reference = weakref.ref(module)  # a strong one would keep its own key alive
        _of_modules[module] = Captured(
            lambda *args, **kwargs: reference()(*args, **kwargs),
            version=lambda: tuple(p.data_ptr() for p in reference().parameters()),
        )
    return _of_modules[module]


class Captured:
    """A function of tensors that is recorded as a CUDA graph; call it as the function itself.

    Arguments may be tensors, numbers, strings, None, and tuples, lists and dicts of them; results too. Everything but
    tensors' values is part of the key of a recording: shape, strides, dtype, numbers. The function must not depend on
    tensors' values by control flow, nor wait for the device; parameters that it uses must stay where they are in memory
    (changing them in place is fine; after moving or replacing them, call :meth:`reset`, or see ``version``).

    Memory: a recording keeps its inputs, results and intermediate tensors until it is evicted, :meth:`reset` or the object is
    deleted.

    Attributes:
        reason: why calls are eager, or None.
        limit: recordings that are kept; the one that was not used for longest goes first.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        limit: int = 4,
        copy: bool = True,
        eager_calls: int = 1,
        version: Callable[[], Hashable] | None = None,
    ) -> None:
        """
        Args:
            copy: give fresh tensors; otherwise results are the recording's own, which its next call overwrites.
            eager_calls: calls with the same shapes before recording, at least 1.
            version: asked before every call; a recording is replayed for the version only that it was made for.
        """
        self.function, self.limit, self.copy, self.eager_calls = function, limit, copy, max(eager_calls, 1)
        self.version = version
        self.reason: str | None = None
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors: list[Tensor] = []
        key = _flatten((args, kwargs), tensors)
        if not self._possible(tensors):
            return self.function(*args, **kwargs)
        version = None if self.version is None else self.version()
        key = (key, version, torch.is_inference_mode_enabled(), torch.is_grad_enabled(), _autocast())
        with self._lock:
            recording = self._recordings.get(key)
            if recording is None:
                calls = self._seen.pop(key, 0)
                self._seen[key] = calls + 1
                while len(self._seen) > 64:
                    self._seen.popitem(last=False)
                if calls < self.eager_calls:
                    return self.function(*args, **kwargs)
                try:
                    recording = _Recording(self.function, args, kwargs, tensors)
                except RuntimeError as error:
                    self.reason = f"the function cannot be recorded: {error}"
                    self._recordings.clear()
                    return self.function(*args, **kwargs)
                while len(self._recordings) >= max(self.limit, 1):
                    self._recordings.popitem(last=False)
                self._recordings[key] = recording
            self._recordings.move_to_end(key)
            return recording.replay(tensors, self.copy)

    def reset(self) -> None:
        """Forget all recordings and give their memory back to PyTorch's allocator."""
        with self._lock:
            self._recordings.clear()
            self._seen.clear()
            self.reason = None

    def _possible(self, tensors: list[Tensor]) -> bool:
        if self.reason is not None or torch.compiler.is_compiling():
            return False
        devices = {t.device for t in tensors}
        if len(devices) != 1 or next(iter(devices)).type != "cuda":
            return False
        if torch.cuda.is_current_stream_capturing():
            return False
        return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


class _Recording:
    """One graph with its static inputs and outputs."""

    def __init__(self, function: Callable[..., Any], args: tuple, kwargs: dict, tensors: list[Tensor]) -> None:
        device = tensors[0].device
        current, side = torch.cuda.current_stream(device), _capture_stream(device)
        self.inputs = [t.detach().clone(memory_format=torch.preserve_format) for t in tensors]
        args, kwargs = _rebuild((args, kwargs), iter(self.inputs))
        side.wait_stream(current)
        self.graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # casts from outside would be freed under the graph's feet
        with torch.cuda.device(device), torch.cuda.stream(side):
            self.graph.capture_begin(capture_error_mode="thread_local")
            try:
                result = function(*args, **kwargs)
            finally:
                self.graph.capture_end()
                torch.clear_autocast_cache()
        self.result = result
        self.outputs: list[Tensor] = []
        _flatten(result, self.outputs)
        current.wait_stream(side)
        self.done = torch.cuda.Event()

    def replay(self, tensors: list[Tensor], copy: bool) -> Any:
        stream = torch.cuda.current_stream(self.inputs[0].device)
        stream.wait_event(self.done)  # the last replay may have been on another stream
        if self.inputs:
            torch._foreach_copy_(self.inputs, tensors)
        self.graph.replay()
        if not copy:
            self.done.record(stream)
            return self.result
        fresh = [t.clone(memory_format=torch.preserve_format) for t in self.outputs]
        self.done.record(stream)
        return _rebuild(self.result, iter(fresh))


def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream a device, on which the matrix libraries already have their workspace (so that no graph owns it)."""
    index = device.index if device.index is not None else torch.cuda.current_device()
    if index not in _streams:
        stream = torch.cuda.Stream(device)
        with torch.cuda.stream(stream), torch.no_grad(), torch.autocast("cuda", enabled=False):
            a = torch.ones(16, 16, device=device, dtype=torch.float16)
            torch.addmm(a[0], a, a)
            torch.mm(a, a)
        _streams[index] = stream
    return _streams[index]


def _autocast() -> Hashable:
    return torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")


def _flatten(value: Any, tensors: list[Tensor]) -> Hashable:
    """Append ``value``'s tensors to the list; return everything else about it."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return (value.shape, value.stride(), value.dtype, value.device)
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, *(_flatten(v, tensors) for v in value))
    if isinstance(value, dict):
        return ("dict", *((k, _flatten(v, tensors)) for k, v in value.items()))
    return value


def _rebuild(value: Any, tensors: Any) -> Any:
    """The same structure with the next tensors of an iterator."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rebuild(v, tensors) for v in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_rebuild(v, tensors) for v in value)
    if isinstance(value, dict):
        return {k: _rebuild(v, tensors) for k, v in value.items()}
    return value
