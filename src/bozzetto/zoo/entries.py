"""The list of weights: those inside this package (``bundled.py``) and the published ones (``published.py``)."""

from __future__ import annotations

from ..errors import UnknownModelError
from .bundled import MATTING, MINI
from .entry import WeightsEntry, WeightsFile
from .published import PUBLISHED

__all__ = ["ENTRIES", "WeightsEntry", "WeightsFile", "find_entry"]

ENTRIES: dict[str, WeightsEntry] = {e.name: e for e in (*MINI, *PUBLISHED, *MATTING)}


def find_entry(name: str) -> WeightsEntry:
    """The entry called ``name``; raises :class:`UnknownModelError` listing the known ones."""
    if name not in ENTRIES:
        raise UnknownModelError(f"unknown model {name!r}; known: {', '.join(ENTRIES)}")
    return ENTRIES[name]
