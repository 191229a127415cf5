"""Objects measured by several processes, each with a model of its own: how the cores of a CPU are put to use.

The networks are small enough that a second thread gains little; a second process halves the time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

from ..data.procedural.workers import worker_context
from ..errors import BozzettoError
from ..options import REFINE_STEPS
from .models import load_distance, load_model
from .objects import Sample
from .protocol import SIZE
from .run import ObjectResult, Tell, measure_object


@dataclass(frozen=True)
class Job:
    """What every process needs to know.

    Attributes:
        model: name or weights file. device: "cpu", "cuda" or "cuda:N".
        perceptual: as :func:`models.load_distance` takes it.
        mesh_objects: of the first so many objects of every source a mesh is made and measured, too.
    """

    model: str
    device: str
    perceptual: str | None = None
    mesh_objects: int = 0
    refine: int = REFINE_STEPS  # as :func:`models.lgm_model` takes it
    size: int = SIZE  # of the pictures; another than the protocol's is for tests


_own: dict[str, Any] = {}  # of a worker process


def _start(job: Job, samples: Sequence[Sample], threads: int) -> None:
    torch.set_num_threads(threads)
    device = torch.device(job.device)
    _own.update(samples=samples, job=job, model=load_model(job.model, device, job.refine))
    _own["perceptual"] = load_distance(job.perceptual, device)[0]


def _measure(sample: int, place: int) -> ObjectResult:
    job: Job = _own["job"]
    obj, mesh = _own["samples"][sample].make(place), place < job.mesh_objects
    return measure_object(_own["model"], obj, perceptual=_own["perceptual"], mesh=mesh, size=job.size)


def measure_in_processes(
    job: Job, samples: Sequence[Sample], workers: int, tell: Tell | None = None
) -> dict[str, list[ObjectResult]]:
    """As :func:`run.measure`, in ``workers`` processes; the results are in the same order and equal but for rounding.

    Raises:
        BozzettoError: a process was ended from outside.
    """
    out: dict[str, list[ObjectResult]] = {s.name: [] for s in samples}
    places = [(s, i) for s, sample in enumerate(samples) for i in range(len(sample))]
    threads = max((os.cpu_count() or 1) // workers, 1)
    pool = ProcessPoolExecutor(workers, worker_context(), _start, (job, list(samples), threads))
    try:
        waiting = [pool.submit(_measure, s, i) for s, i in places]
        for done, ((s, i), future) in enumerate(zip(places, waiting)):
            name = samples[s].name
            if tell is not None:
                tell(f"measuring {name}: {i + 1} of {len(samples[s])}", done / max(len(places), 1))
            result = future.result()
            result.source = name
            out[name].append(result)
    except BrokenProcessPool as problem:
        raise BozzettoError("a worker process ended early (out of memory?); use fewer --workers") from problem
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return out
