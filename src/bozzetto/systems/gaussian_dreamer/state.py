"""A run on disk: its state (to go on after a stop) and its preview pictures. Whole files or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...camera import Cameras
from ...errors import CheckpointError, InputError
from ...files.atomic import atomic_path
from ...files.images import write_image
from ...gaussians import Gaussians
from ...raster import rasterize
from .cameras import NEAR, TEST_DISTANCE, TEST_ELEVATION
from .densify import DensificationStats
from .optimise import RunState
from .parameters import GaussianParameters

FILE = "gaussian-dreamer.safetensors"
FORMAT = "bozzetto gaussian-dreamer run 1"
PREVIEW_VIEWS, PREVIEW_SIZE, PREVIEW_FOV = 4, 256, 45.0
_COUNTERS = ("bad_steps", "worst_streak", "bad_entries")


@dataclass
class SavedRun:
    """What :func:`load_run` finds: the state, the start's own frame (``back`` [4, 4]), and what the start was."""

    state: RunState
    back: Tensor
    source: str


def save_run(folder: Path, state: RunState, back: Tensor, source: str, identity: Mapping[str, Any], steps: int) -> Path:
    """Write the state into ``folder``. ``identity``: what must be equal to go on; plain values. ``steps``: of the whole run."""
    from safetensors.torch import save_file

    tensors = state.parameters.state()
    tensors |= {f"stats.{k}": v.cpu().contiguous() for k, v in vars(state.stats).items()}
    tensors |= {f"count.{k}": getattr(state, k).cpu() for k in _COUNTERS}
    tensors["back"] = back.contiguous()
    about = {"format": FORMAT, "step": state.step, "steps": steps, "source": source, "identity": dict(identity)}
    path = folder / FILE
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"run": json.dumps(about, sort_keys=True)})
    return path


def load_run(
    folder: Path, identity: Mapping[str, Any], steps: int, device: torch.device | str = "cpu"
) -> SavedRun | None:
    """The run in ``folder`` to go on with; None if there is none, or a finished one with other settings.

    ``steps`` may differ from the saved run's: a longer run goes on from a shorter one.

    Raises:
        InputError: an unfinished run with other settings (the message says which), or one that is already longer.
        CheckpointError: the file is damaged.
    """
    from safetensors import safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})["run"])
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']!r}")
            before, step = about["identity"], int(about["step"])
            changed = [k for k in sorted({*before, *identity}) if before.get(k) != identity.get(k)]
            if changed and step >= int(about["steps"]):
                return None
            if changed:
                told = "; ".join(f"{k} was {before.get(k)!r} and is now {identity.get(k)!r}" for k in changed)
                raise InputError(
                    f"{path} holds a run that stopped at step {step} of {about['steps']} with other settings: {told}. "
                    "Use the same settings to go on, another output folder, or delete that file to start again"
                )
            if step > steps:
                raise InputError(
                    f"{path} holds a run of {step} steps already; ask for more than that, use another output folder, or "
                    "delete that file to start again"
                )
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            parameters = GaussianParameters.from_state(tensors, device=device)
            stats = DensificationStats(*(tensors[f"stats.{k}"].to(device) for k in ("gradient", "count", "radii")))
            state = RunState(parameters, stats, step, *(tensors[f"count.{k}"] for k in _COUNTERS)).to(device)
            return SavedRun(state, tensors["back"], about["source"])
    except InputError:
        raise
    except Exception as error:  # a damaged file can break the reader anywhere
        raise CheckpointError(f"{path} is not a readable state of a run ({error}); delete it to start again") from error


@torch.no_grad()
def write_preview(folder: Path, gaussians: Gaussians, step: int) -> Path:
    """Four sides in a row, as the diffusion model sees them (on black): ``preview_0100.png`` and ``latest.png``."""
    azimuth = [360.0 * i / PREVIEW_VIEWS for i in range(PREVIEW_VIEWS)]
    cameras = Cameras.orbit(azimuth, TEST_ELEVATION, TEST_DISTANCE, PREVIEW_FOV)
    pictures = rasterize(gaussians, cameras, PREVIEW_SIZE, near=NEAR).rgb.clamp(0, 1).cpu()
    row = torch.cat(list(pictures), dim=1)
    path = folder / f"preview_{step:04d}.png"
    write_image(path, row)
    write_image(folder / "latest.png", row)
    return path
