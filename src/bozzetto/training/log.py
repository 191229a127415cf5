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

from ..files.atomic import atomic_path, output_error
from ..files.images import write_image


class Table:
    """A CSV file that grows by rows; ``step`` is its first column. Columns may be added in the course of a run.

    Opening it drops the rows after ``start`` and whatever a killed process left half-written.
    """

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self.columns: list[str] = []
        if path.exists():
            columns, rows = self._read()
            self._rewrite(columns, [r for r in rows if int(r["step"]) <= start])

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and whole rows of the file."""
        if not self.path.exists():
            return [], []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            # The last number of a line that does not end may lack digits.
            header, *rest = list(csv.reader(line for line in file if line.endswith("\n"))) or [[]]
        if "step" not in header:
            return [], []
        place = header.index("step")
        whole = [r for r in rest if len(r) == len(header) and r[place].isascii() and r[place].isdigit()]
        return header, [dict(zip(header, r)) for r in whole]

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        self.columns = columns if rows else []
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            if rows:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row, which holds ``step``; cells of columns that it lacks stay empty."""
        new = [key for key in row if key not in self.columns]
        if new:
            self._rewrite([*self.columns, *new], [*self._read()[1], row])
            return
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        except OSError as error:
            raise output_error(self.path, error) from error

    def at(self, step: int) -> dict[str, float] | None:
        """The numbers of the row of ``step``, if there is one."""
        for row in self._read()[1]:
            if int(row["step"]) == step:
                return {k: float(v) for k, v in row.items() if k != "step" and v}
        return None


class RunLog:
    """Append-only log of one run; a resumed run drops the rows after the step it resumes from and goes on.

    Args:
        folder: of the run.
        enabled: False writes and prints nothing (all ranks but the first).
        start: step the run resumes from, 0 for a new one.
        echo: print a line per row on standard output.
    """

    def __init__(self, folder: Path, enabled: bool = True, start: int = 0, echo: bool = True) -> None:
        self.folder, self.enabled, self.echo = folder, enabled, echo
        self._tensorboard = None
        self._last = (time.monotonic(), start)
        if not enabled:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(folder, error) from error
        self._log, self._evaluations = Table(folder / "log.csv", start), Table(folder / "evaluation.csv", start)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        except ImportError:
            pass

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
        self._log.append({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        if self.echo:
            print(f"step {step}  " + "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step"), flush=True)
        self._scalars(step, "train", numbers)

    def evaluation(self, step: int, numbers: dict[str, float]) -> None:
        """One row of ``evaluation.csv``."""
        if self.enabled and numbers:
            self._evaluations.append({"step": step, **{k: f"{v:.6g}" for k, v in numbers.items()}})
            if self.echo:
                print(f"step {step}  evaluation  " + "  ".join(f"{k} {v:.3f}" for k, v in numbers.items()), flush=True)
            self._scalars(step, "evaluation", numbers)

    def evaluated(self, step: int) -> dict[str, float] | None:
        """What ``evaluation.csv`` holds for ``step``, to six digits; None if that step has not been evaluated."""
        return self._evaluations.at(step) if self.enabled else None

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
