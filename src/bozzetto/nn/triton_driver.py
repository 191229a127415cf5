"""Triton's side towards the GPU without a C compiler.

Triton compiles kernels by itself (its wheel brings ``ptxas``), but two things around them are C sources that it hands to
the machine's C compiler, together with Python's headers: a module that loads binaries, once, and a launcher for every
signature of a kernel. Here both are calls of the CUDA driver's library, ``libcuda.so.1``, through ``ctypes``. Everything else
is Triton's own. :mod:`.triton_support` decides when this driver is used.

Source: CUDA Driver API (module, execution control and device management); the interface is that of Triton 3.2 to 3.6.
Kernels with tensor descriptors, clusters or scratch memory are refused: the project has none.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from functools import cache
from typing import Any

import torch
from triton.backends.driver import GPUDriver
from triton.backends.nvidia.driver import CudaDriver
from triton.compiler.compiler import CompiledKernel

_FORMATS = {
    "i1": "b", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "u1": "B", "u8": "B", "u16": "H", "u32": "I", "u64": "Q",
    "fp32": "f", "f32": "f", "fp64": "d",
}  # fmt: skip
_NO_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT
_ATTRIBUTES = {  # of a device, by the names that Triton gives them
    "max_shared_mem": 97,  # bytes a block may have when it asks for them
    "max_num_regs": 12,  # of a block
    "multiprocessor_count": 16,
    "warpSize": 10,
    "sm_clock_rate": 13,
    "mem_clock_rate": 36,
    "mem_bus_width": 37,
}
_WITHOUT_ASKING = 49152  # bytes of shared memory


class Cuda:
    """``libcuda`` with errors as :class:`RuntimeError`."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        shape = [
            ctypes.c_void_p,
            *[ctypes.c_uint] * 7,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]  # function, grid .. stream, arguments
        self.launch, self.launch_cooperative = self.library.cuLaunchKernel, self.library.cuLaunchCooperativeKernel
        self.launch.argtypes, self.launch_cooperative.argtypes = [*shape, ctypes.c_void_p], shape

    def __call__(self, name: str, *args: Any) -> None:
        code = getattr(self.library, name)(*args)
        if code:
            raise RuntimeError(f"{name} failed: {self.error(code)}")

    def error(self, code: int) -> str:
        text = ctypes.c_char_p()
        self.library.cuGetErrorString(code, ctypes.byref(text))
        return f"{(text.value or b'unknown error').decode()} ({code})"

    def use_primary_context(self, device: int) -> None:
        """Make the context that PyTorch uses the calling thread's."""
        handle, context = ctypes.c_int(), ctypes.c_void_p()
        self("cuDeviceGet", ctypes.byref(handle), device)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        self("cuCtxSetCurrent", context)


class Utils:
    """What Triton asks of its module ``cuda_utils``."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.counts_threads = "n_max_threads" in CompiledKernel._init_handles.__code__.co_names

    def get_device_properties(self, device: int) -> dict[str, int]:
        value, properties = ctypes.c_int(), {}
        for name, number in _ATTRIBUTES.items():
            self.cuda("cuDeviceGetAttribute", ctypes.byref(value), number, device)
            properties[name] = value.value
        return properties

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, ...]:
        """(module, function, registers a thread, spilled words a thread, threads a block may have: in later versions)."""
        current = ctypes.c_void_p()
        self.cuda("cuCtxGetCurrent", ctypes.byref(current))
        if not current.value:
            self.cuda.use_primary_context(device)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.cuda("cuModuleLoadData", ctypes.byref(module), binary)
        self.cuda("cuModuleGetFunction", ctypes.byref(function), module, name.encode())

        def attribute(number: int) -> int:
            value = ctypes.c_int()
            self.cuda("cuFuncGetAttribute", ctypes.byref(value), number, function)
            return value.value

        if shared > _WITHOUT_ASKING:
            most = self.get_device_properties(device)["max_shared_mem"]
            self.cuda("cuFuncSetCacheConfig", function, 1)  # prefer shared memory to cache
            self.cuda("cuFuncSetAttribute", function, 8, most - attribute(1))  # dynamic beside static
        threads = (attribute(0),) if self.counts_threads else ()
        return (module.value, function.value, attribute(4), attribute(3) // 4, *threads)

    def set_printf_fifo_size(self, size: int) -> None:
        self.cuda("cuCtxSetLimit", 1, ctypes.c_size_t(size))


@cache
def utils() -> Utils:
    return Utils(Cuda())


class Launcher:
    """Launches of one compiled kernel; called as Triton calls its own launchers.

    Arguments are packed into one piece of memory to which ``pointers`` point; a lock keeps threads apart.
    """

    def __init__(self, src: Any, metadata: Any) -> None:
        self.cuda = utils().cuda
        constants = set(getattr(src, "constants", None) or ())
        kinds = list(src.signature.items())
        unknown = [kind for _, kind in kinds if not (kind in _FORMATS or kind == "constexpr" or str(kind)[0] == "*")]
        if unknown or metadata.num_ctas != 1 or getattr(metadata, "global_scratch_size", 0):
            raise NotImplementedError(f"{metadata.name}: such kernels need Triton's own launcher, hence a C compiler")
        passed = [i for i, (key, kind) in enumerate(kinds) if kind != "constexpr" and key not in constants]
        self.cooperative = bool(getattr(metadata, "launch_cooperative_grid", False))
        self.pointer_args = [kinds[i][1][0] == "*" for i in passed]
        self.passed = passed
        formats = ["Q" if kinds[i][1][0] == "*" else _FORMATS[kinds[i][1]] for i in passed] + [
            "Q",
            "Q",
        ]  # scratch: none
        self.packer = struct.Struct(
            "=" + "".join(f"{f}{8 - struct.calcsize('=' + f)}x" for f in formats)
        )  # 8 bytes each
        self.memory = ctypes.create_string_buffer(self.packer.size)
        first = ctypes.addressof(self.memory)
        self.pointers = (ctypes.c_void_p * len(formats))(*(first + 8 * i for i in range(len(formats))))
        self.threads, self.shared = 32 * metadata.num_warps, metadata.shared
        self.lock = threading.Lock()
        self.start = self.cuda.launch_cooperative if self.cooperative else self.cuda.launch

    def __call__(
        self,
        x: int,
        y: int,
        z: int,
        stream: int,
        function: int,
        packed: Any,
        launch: Any,
        enter: Any,
        leave: Any,
        *args: Any,
    ) -> None:
        if enter is not None:
            enter(launch)
        self.launch(x, y, z, stream, function, args)
        if leave is not None:
            leave(launch)

    def launch(self, x: int, y: int, z: int, stream: int, function: int, args: tuple) -> None:
        """Launch ``function`` on a grid of programs; ``args``: of the kernel, constants included from Triton 3.3 on."""
        if x * y * z == 0:
            return
        values = [
            (0 if args[i] is None else args[i] if type(args[i]) is int else args[i].data_ptr()) if pointer else args[i]
            for i, pointer in zip(self.passed, self.pointer_args)
        ]
        more = () if self.cooperative else (None,)
        with self.lock:
            self.packer.pack_into(self.memory, 0, *values, 0, 0)
            block = (self.threads, 1, 1, self.shared, stream, self.pointers, *more)
            code = self.start(function, x, y, z, *block)
            if code == _NO_CONTEXT:
                self.cuda.use_primary_context(torch.cuda.current_device())
                code = self.start(function, x, y, z, *block)
        if code:
            raise RuntimeError(f"a kernel could not be launched: {self.cuda.error(code)}")


class CompilerFreeDriver(CudaDriver):
    """Triton's CUDA driver with :class:`Utils` and :class:`Launcher` in the place of compiled modules."""

    def __init__(self) -> None:
        self.utils, self.launcher_cls = utils(), Launcher
        GPUDriver.__init__(self)
