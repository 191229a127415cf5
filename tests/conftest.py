"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads this once, when it is first imported, be it by us or by another library: its kernels then run on the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("BOZZETTO_SHARED", ROOT.parent / "shared"))
    if not (folder / "parity").is_dir():
        pytest.skip(f"reference data not found at {folder} (set BOZZETTO_SHARED to its folder)")
    return folder


@pytest.fixture(scope="session")
def fill(shared: Path):
    """The module that fills networks with deterministic weights (``fill_module``, ``test_input``)."""
    spec = importlib.util.spec_from_file_location("parity_fill", shared / "parity" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data() -> Path:
    """Small golden files that travel with the repository."""
    return Path(__file__).resolve().parent / "data"
