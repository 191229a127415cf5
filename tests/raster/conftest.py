"""Makes the helper modules of this folder importable; lets the Triton kernels run where there is no CUDA device."""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

if not torch.cuda.is_available():
    # Triton reads this once, when it is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")
