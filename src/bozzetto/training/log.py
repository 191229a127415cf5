"""What a run leaves to read: a CSV of numbers, pictures, its configuration, and TensorBoard events where installed."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files.atomic import atomic_path
from ..files.images import write_image


class RunLog:
    """Append-only log of one run; a resumed run drops the rows after the step it resumes from and goes on."""

    def __init__(self, folder: Path, enabled: bool = True, start: int = 0) -> None:
        self.folder, self.enabled, self._columns = folder, enabled, None
        self._tensorboard = None
        self._last = (time.monotonic(), start)
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("log.csv", "evaluation.csv"):
            self._truncate(folder / name, start)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        except ImportError:
            pass

    @staticmethod
    def _truncate(path: Path, start: int) -> None:
        if not path.exists():
            return
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
            columns = rows[0].keys() if rows else []
        kept = [r for r in rows if int(r["step"]) <= start]
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            if kept:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(kept)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        path = self.folder / name
        fresh = not path.exists() or path.stat().st_size == 0
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def describe(self, description: dict[str, Any]) -> None:
        """Write ``run.json``: the configuration and the versions it ran with."""
        if self.enabled:
            description = {**description, "torch": torch.__version__, "python": sys.version.split()[0]}
            with atomic_path(self.folder / "run.json") as temporary:
                temporary.write_text(json.dumps(description, indent=2, default=str) + "\n")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """One row of ``log.csv``, one line on the terminal."""
        if not self.enabled:
            return
        now = time.monotonic()
        rate = (step - self._last[1]) / max(now - self._last[0], 1e-9)
        self._last = (now, step)
        row = {"step": step, **numbers, "steps_per_second": rate}
        self._append("log.csv", {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        print(f"step {step}  " + "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step"), flush=True)
        self._scalars(step, "train", numbers)

    def evaluation(self, step: int, numbers: dict[str, float]) -> None:
        """One row of ``evaluation.csv``."""
        if self.enabled and numbers:
            self._append("evaluation.csv", {"step": step, **{k: f"{v:.6g}" for k, v in numbers.items()}})
            print(f"step {step}  evaluation  " + "  ".join(f"{k} {v:.3f}" for k, v in numbers.items()), flush=True)
            self._scalars(step, "evaluation", numbers)

    def picture(self, step: int, picture: Tensor | None) -> None:
        """``samples/<step>.png`` of an [H, W, 3] picture."""
        if self.enabled and picture is not None:
            write_image(self.folder / "samples" / f"{step:08d}.png", picture.float().cpu())
            if self._tensorboard is not None:
                self._tensorboard.add_image("samples", picture.clamp(0, 1), step, dataformats="HWC")

    def _scalars(self, step: int, group: str, numbers: dict[str, float]) -> None:
        if self._tensorboard is not None:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(f"{group}/{key}", value, step)

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
