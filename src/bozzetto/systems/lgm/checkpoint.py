"""Published and own checkpoint files -> LGM networks. The published keys equal our module names."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ...errors import CheckpointError
from ...zoo.loading import load_state, read_tensors
from .network import LGM, LGMConfig
from .presets import PRESETS, preset

# Saved by the authors' training script beside the model, and not part of it.
IGNORED_PREFIXES = ("lpips_loss.",)


def guess_preset(shapes: dict[str, tuple[int, ...]]) -> str:
    """The preset whose network has exactly these tensors; raises :class:`CheckpointError` when none fits."""
    wanted = {k: v for k, v in shapes.items() if not k.startswith(IGNORED_PREFIXES)}
    for name, config in PRESETS.items():
        with torch.device("meta"):
            own = {k: tuple(v.shape) for k, v in LGM(config).state_dict().items()}
        if own == wanted:
            return name
    raise CheckpointError(
        f"these {len(wanted)} tensors fit none of the LGM presets ({', '.join(PRESETS)}); "
        "name the preset to see which tensors differ"
    )


def load_lgm(path: str | Path, preset_name: str | None = None, rotation: str | None = None) -> LGM:
    """Read a ``.safetensors`` or torch checkpoint into an LGM network in evaluation mode, float32, on the CPU.

    Args:
        preset_name: which preset's network to build; None recognises it by the tensors.
        rotation: "fixed" or "legacy" (published files from before April 2024); None keeps the preset's.

    Raises:
        CheckpointError: unreadable file, or missing, unexpected or misshapen tensors (listed).
    """
    tensors = read_tensors(path)
    name = preset_name or guess_preset({k: tuple(v.shape) for k, v in tensors.items()})
    config = preset(name)
    if rotation is not None:
        if rotation not in ("fixed", "legacy"):
            raise ValueError(f"rotation must be 'fixed' or 'legacy', got {rotation!r}")
        config = LGMConfig(**{**config.__dict__, "rotation": rotation})
    with torch.device("meta"):
        model = LGM(config)
    model = model.to_empty(device="cpu")
    load_state(model, tensors, str(path), IGNORED_PREFIXES)
    return model.eval().requires_grad_(False)


def save_lgm(
    model: LGM, path: str | Path, metadata: dict[str, object] | None = None, dtype: torch.dtype = torch.float16
) -> None:
    """Write the weights as ``.safetensors`` (fp16 by default, as published ones are), atomically."""
    from safetensors.torch import save_file

    from ...files.atomic import atomic_path

    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    with atomic_path(Path(path)) as temporary:
        save_file(tensors, temporary, metadata=text)
