"""Whether Triton's kernels can run here, decided in one place for every room."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import threading
import warnings
from pathlib import Path

import torch

from ..errors import BozzettoError

_lock = threading.Lock()
_reason: list[str | None] = []  # empty until asked for the first time


def triton_usable() -> bool:
    """Whether kernels can be launched: Triton is installed, and can be brought to this machine's GPU.

    The first call on a machine with a GPU prepares that: where no C compiler or no headers of Python are found, Triton gets
    a driver that needs none (:mod:`.triton_driver`). If kernels cannot run although there is a GPU, the first call warns,
    once, with what to do; callers then take their plain PyTorch way.
    """
    return why_not() is None


def why_not() -> str | None:
    """Why :func:`triton_usable` is false, or None."""
    with _lock:
        if not _reason:
            _reason.append(_find_out())
            if _reason[0] is not None and torch.cuda.is_available():
                warnings.warn(f"GPU work runs without the fast kernels, many times slower: {_reason[0]}", stacklevel=3)
        return _reason[0]


def require_triton(what: str) -> None:
    """Raise :class:`BozzettoError` where kernels cannot run, for work that has no other way on a GPU."""
    reason = why_not()
    if reason is not None:
        raise BozzettoError(f"{what} on a GPU needs Triton: {reason}. Or compute on the CPU (--device cpu)")


def _find_out() -> str | None:
    try:
        import triton
    except ImportError:
        return "Triton is not installed; install it with: pip install triton (on Windows: triton-windows)"
    if os.environ.get("TRITON_INTERPRET") == "1" or not torch.cuda.is_available() or torch.version.hip is not None:
        return None
    problem = compiler_missing() if sys.platform == "linux" else None  # Triton for Windows brings a compiler
    if problem is None:
        try:
            triton.runtime.driver.active.get_current_device()  # loads or compiles what Triton itself needs
            return None
        except Exception as error:  # whatever the compiler or the loader may raise
            problem = f"Triton's C sources could not be compiled ({type(error).__name__}: {error})"
    return _without_compiler(problem) if sys.platform == "linux" else problem


def compiler_missing() -> str | None:
    """What is missing for Triton's C sources, by the rules by which Triton looks for it; None if nothing is."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or shutil.which(compiler) is None:
        return "no C compiler was found (gcc or clang on PATH, or the environment variable CC)"
    scheme = sysconfig.get_default_scheme()
    headers = sysconfig.get_paths(scheme="posix_prefix" if scheme == "posix_local" else scheme)["include"]
    if not (Path(headers) / "Python.h").is_file():
        return f"Python's headers are not installed ({headers}/Python.h)"
    return None


def _without_compiler(problem: str) -> str | None:
    """Give Triton the driver that needs no compiler and see whether a kernel runs; the reason if it does not."""
    import triton

    try:
        from .triton_driver import CompilerFreeDriver
        from .triton_probe import probe

        triton.runtime.driver.set_active(CompilerFreeDriver())
        probe()
    except Exception as error:  # an interface of another version of Triton, or of the CUDA driver
        return (
            f"{problem}, and the way around it failed ({type(error).__name__}: {error}); install gcc and Python's headers "
            "(Debian, Ubuntu: apt install gcc python3-dev)"
        )
    return None
