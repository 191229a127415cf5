"""The generated objects that training may see."""

from __future__ import annotations

from ...data.render import PackedObject
from ...errors import InputError


def make_packed_object(seed: int, texture_size: int = 128) -> PackedObject:
    """One training object, generated and flattened; runs in worker processes."""
    from ...data.procedural import generate_object

    check_object_number(seed)
    return PackedObject.pack(generate_object(seed, texture_size=texture_size))


def check_object_number(seed: int) -> None:
    """Raise :class:`InputError` for objects that training must not see."""
    from ...data.procedural import HELD_OUT_SEEDS

    if not 0 <= seed < HELD_OUT_SEEDS.start:
        raise InputError(
            f"training object {seed}: numbers from 0 to {HELD_OUT_SEEDS.start - 1} are for training, the rest for "
            "evaluation; choose another --first-seed"
        )
