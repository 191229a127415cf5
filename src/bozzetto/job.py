"""One run of a pipeline: where it computes, with which seed, where its weights are, and what it tells."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .errors import InputError

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)


def silent(stage: str, share: float) -> None:
    """Tells nobody."""


class timed:
    """``with timed(timings, "stage"):`` adds the block's seconds to ``timings["stage"]``."""

    def __init__(self, timings: dict[str, float], stage: str) -> None:
        self.timings, self.stage = timings, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.timings[self.stage] = round(self.timings.get(self.stage, 0.0) + time.perf_counter() - self.start, 3)


@dataclass
class Job:
    """What a pipeline needs beside its input and its options.

    Attributes:
        device: where networks run.
        seed: of everything random.
        tell: progress, called with (stage, share done).
        mesh: whether a mesh is wanted; systems that make it from their own field look at this.
        mesh_method: how Gaussians become a mesh, "fast" or "nerf".
        weights: zoo entry name -> local file or folder to use instead of the published one.
        workspace: folder for live previews and for state to resume from, or None to write neither.
        pictures: file name -> [H, W, 3], intermediate results that are written beside the asset.
        timings: seconds by stage. report: plain values that go to ``report.json``.
    """

    device: torch.device
    seed: int = 0
    tell: Progress = silent
    mesh: bool = True
    weights: dict[str, str] = field(default_factory=dict)
    workspace: Path | None = None
    mesh_method: str = "fast"
    pictures: dict[str, torch.Tensor] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    _located: dict[str, Path] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise InputError(f"the seed must be a whole number in 0..2^63 - 1, got {self.seed!r}")
        torch.manual_seed(self.seed)
        random.seed(self.seed)

    def stage(self, name: str) -> timed:
        """``with job.stage("network"):`` measures the block."""
        return timed(self.timings, name)

    def generator(self) -> torch.Generator:
        """A fresh CPU generator with the job's seed: the same numbers on every device."""
        return torch.Generator().manual_seed(self.seed)

    def locate(self, entry: str) -> Path:
        """The file of a zoo entry, or the folder that holds its files; downloaded if it is not on this machine."""
        from .zoo import locate

        if entry not in self._located:  # asked for before any work and again by the pipeline: checked once
            self._located[entry] = locate(entry, self.weights.get(entry), self.tell)
        return self._located[entry]
