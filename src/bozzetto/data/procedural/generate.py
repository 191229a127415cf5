"""Objects from seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from ...errors import InputError
from ..objects import TexturedObject
from . import buildings, creatures, generic, household, nature, vehicles
from .assembly import Assembly
from .deform import random_rotation, rotation
from .materials import Materials

#: Seeds of the objects kept for evaluation. Training uses seeds below 10**9 only.
HELD_OUT_SEEDS = range(10**9, 10**9 + 10**6)

#: Composition modes with their weights.
MODES: dict[str, tuple[Callable[[Assembly], None], float]] = {
    "overlap": (generic.overlap, 0.16),
    "single": (generic.single, 0.04),
    "stacked": (generic.stacked, 0.1),
    "mirrored": (generic.mirrored, 0.09),
    "radial": (generic.radial, 0.07),
    "creature": (creatures.creature, 0.16),
    "vehicle": (vehicles.vehicle, 0.09),
    "vessel": (household.vessel, 0.08),
    "furniture": (household.furniture, 0.09),
    "nature": (nature.nature, 0.08),
    "building": (buildings.building, 0.06),
}

_MOST_TRIANGLES = 28_000


def generate_object(seed: int, *, texture_size: int = 128) -> TexturedObject:
    """The procedural object number ``seed``.

    A function of its arguments alone: the same in every process, and the same on every machine with one NumPy version up
    to the last bits of floating point. The shape does not depend on ``texture_size``.

    Args:
        seed: 0 or above. Seeds in :data:`HELD_OUT_SEEDS` are for evaluation (``split`` "test"), others train.
        texture_size: side of the textures in pixels, a power of two from 16 to 1024; a few detailed ones get twice it.

    Returns:
        The object; ``info`` holds "seed", "mode" and "textures" (the kind of every texture).

    Raises:
        InputError: seed or texture size out of range.
    """
    seed = int(seed)
    if seed < 0:
        raise InputError(f"an object's seed must be 0 or above, got {seed}")
    if texture_size not in (16, 32, 64, 128, 256, 512, 1024):
        raise InputError(f"texture_size must be a power of two from 16 to 1024, got {texture_size}")
    names = list(MODES)
    weights = np.array([w for _, w in MODES.values()])
    quality = 1.0
    for _ in range(6):
        shape, paint, choice = (np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(3))
        mode = names[int(choice.choice(len(names), p=weights / weights.sum()))]
        assembly = Assembly(shape, Materials(paint, texture_size), quality)
        MODES[mode][0](assembly)
        if assembly.triangles() <= _MOST_TRIANGLES:
            break
        quality *= 0.9 * float(np.sqrt(_MOST_TRIANGLES / assembly.triangles()))
    turn = _orientation(choice, mode)
    made = assembly.finish(turn, float(choice.uniform(0.45, 0.6)))
    made.name = f"procedural-{seed}"
    made.split = "test" if seed in HELD_OUT_SEEDS else "train"
    made.info.update(seed=seed, mode=mode)
    return made


def _orientation(rng: np.random.Generator, mode: str) -> np.ndarray:
    """Mostly upright (half of those facing +z, the others turned about y), else any rotation."""
    tilted = 0.45 if mode in ("overlap", "single", "radial") else 0.2
    kind = rng.random()
    if kind < tilted:
        return random_rotation(rng)
    yaw = rotation(1, rng.uniform(0, 2 * np.pi))
    return yaw if rng.random() < 0.5 else np.eye(3)


def generate_objects(seeds: Iterable[int], workers: int = 0, *, texture_size: int = 128) -> Iterator[TexturedObject]:
    """The objects of ``seeds``, in order.

    Args:
        seeds: as for :func:`generate_object`; may be endless.
        workers: processes to use (started by "spawn", so that it works alike everywhere and beside CUDA); 0 works in
            this process. As with any spawned process, the calling script needs ``if __name__ == "__main__":``.
        texture_size: as for :func:`generate_object`.
    """
    if workers < 0:
        raise InputError(f"workers must be 0 or above, got {workers}")
    make = partial(generate_object, texture_size=texture_size)
    if workers == 0:
        yield from map(make, seeds)
        return
    from .workers import ordered_map

    yield from ordered_map(make, seeds, workers)
