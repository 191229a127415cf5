"""Numbers on the command line: types for argparse, whose errors say what was expected."""

from __future__ import annotations

import argparse
import math


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {value}")
    return value


def whole(text: str) -> int:
    """A whole number from 0 to 2**63 - 1."""
    value = _integer(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2**63 - 1, got {value}")
    return value


def weight(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a finite number of at least 0, got {text}")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = weight(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected a number above 0, got 0")
    return value


def probability(text: str) -> float:
    """A number from 0 to 1."""
    value = weight(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def shares(text: str) -> tuple[float, ...]:
    """Four numbers of at least 0, not all 0, with commas between them."""
    values = tuple(weight(item) for item in text.split(","))
    if len(values) != 4 or sum(values) == 0:
        raise argparse.ArgumentTypeError(f"expected four shares such as 0.25,0.05,0.05,0.65, got {text!r}")
    return values


def object_number(text: str) -> int:
    """The number of an object that training may see."""
    from ..data.procedural import HELD_OUT_SEEDS

    value = whole(text)
    if value >= HELD_OUT_SEEDS.start:
        raise argparse.ArgumentTypeError(f"objects from {HELD_OUT_SEEDS.start} on are kept for evaluation, got {value}")
    return value
