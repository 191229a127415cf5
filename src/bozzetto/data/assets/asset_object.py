"""One object as it comes out of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .source_object import SourceObject


@dataclass
class AssetObject(SourceObject):
    """A :class:`SourceObject` in the house frame: y up, front towards +z where it is known.

    Over all frames of all its clips (and at rest) the object lies in the unit sphere around the origin.

    Attributes:
        split: "train", "val" or "test".
        flags: what a filter or a sampler may want to know ("foliage", "one colour", "decimated"; see checks.py).
        colour_words: names of its main colours, the most frequent first.
        rest: centre and radius of the object at rest, (x, y, z, r), in the house frame.
        placement: [4, 4], the collection's own units -> house frame.
        digest: sha256 (hex) of the object as its reader gave it.
    """

    split: str = "train"
    flags: tuple[str, ...] = ()
    colour_words: tuple[str, ...] = ()
    rest: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    placement: NDArray[np.float64] | None = None
    digest: str = ""
