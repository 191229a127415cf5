"""What a user can set for a system: frozen dataclasses whose fields say their help text and their range.

Every system has such classes in ``systems/<name>/options.py``. The command line makes ``--kebab-case`` arguments from the
fields, the Python functions take them as keyword arguments, and both check them here. No torch, so that ``--help`` is fast.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .errors import InputError

T = TypeVar("T")

MESH_METHODS = ("fast", "nerf")  # those of bozzetto.surface, which --help must not import
REFINE_STEPS = 20  # of bozzetto.fitting.refine, after a network that was given several pictures
MAX_REFINE_STEPS = 1000


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field with a help text; ``low`` and ``high`` are inclusive."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)


def flag(name: str) -> str:
    """The command line's spelling of a field name."""
    return "--" + name.replace("_", "-")


def check_text(text: str, what: str) -> None:
    """Raise :class:`InputError` for a text that no file and no tokenizer takes (bytes that were no UTF-8 on a command line)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{what} is not valid Unicode text at character {error.start + 1}; type it in UTF-8") from None


def check_mesh_method(method: str, mesh: bool) -> None:
    """Raise :class:`InputError` for a way from Gaussians to a mesh that there is not, or that is not wanted."""
    if method not in MESH_METHODS:
        raise InputError(f"the mesh method must be one of {', '.join(MESH_METHODS)}, got {method!r}")
    if method != MESH_METHODS[0] and not mesh:
        raise InputError(f"no mesh is wanted, so the mesh method {method!r} does nothing; leave one of the two out")


def check_refine(steps: int) -> None:
    """Raise :class:`InputError` for a number of refining steps that there cannot be."""
    if type(steps) is not int or not 0 <= steps <= MAX_REFINE_STEPS:
        raise InputError(f"refine must be a whole number of steps, 0 (none) to {MAX_REFINE_STEPS}, got {steps!r}")


def check_options(options: Any) -> None:
    """Raise :class:`InputError` where a value has the wrong type, is not finite, out of range, or not one of the choices."""
    for f in dataclasses.fields(options):
        value, m = getattr(options, f.name), f.metadata
        kind = type(f.default)
        if kind is float and type(value) is int:
            object.__setattr__(options, f.name, float(value))
            value = float(value)
        if f.default is not None and (type(value) is not kind):
            raise InputError(f"{flag(f.name)} must be of type {kind.__name__}, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{flag(f.name)} must be a finite number, got {value}")
        if isinstance(value, str):
            check_text(value, flag(f.name))
        if m.get("choices") is not None and value not in m["choices"]:
            raise InputError(f"{flag(f.name)} must be one of {', '.join(m['choices'])}, got {value!r}")
        low, high = m.get("low"), m.get("high")
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            span = (
                f"{low}..{high}"
                if None not in (low, high)
                else (f"at least {low}" if high is None else f"at most {high}")
            )
            raise InputError(f"{flag(f.name)} must be {span}, got {value}")


def build_options(kind: type[T], given: Mapping[str, Any], model: str) -> T:
    """An instance of the options class ``kind`` from what the user gave; names it does not know are an error."""
    known = {f.name for f in dataclasses.fields(kind)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {flag(near[0])}?" if near else "."
            listed = ", ".join(flag(k) for k in sorted(known)) or "none"
            raise InputError(f"{model} has no option {flag(name)}{hint} Its options: {listed}")
    return kind(**given)
