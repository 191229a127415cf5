"""What a user can set for lgm-mini."""

from __future__ import annotations

from dataclasses import dataclass

from ...options import check_options, option


@dataclass(frozen=True)
class PhotoOptions:
    """Options of a photo."""

    elevation: float = option(0.0, "how far from above the photo was taken", low=-90, high=90, metavar="DEGREES")

    def __post_init__(self) -> None:
        check_options(self)
