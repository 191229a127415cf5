"""What a user can set for L4GM. The defaults are the published ones, but for the defects named in docs/l4gm.md."""

from __future__ import annotations

from dataclasses import dataclass

from ...options import check_options, option
from ..lgm.options import SOLVERS


@dataclass(frozen=True)
class VideoOptions:
    """Options of a video: ImageDream makes side views of its first frame, L4GM makes Gaussians of every frame."""

    steps: int = option(30, "denoising steps; about 12 are enough for dpm++", low=1, high=999)
    guidance: float = option(
        5.0, "how strongly the views follow the photo and the prompt; 1: not amplified", low=0, high=100
    )
    prompt: str = option("", "what the video shows, in words; may stay empty", metavar="TEXT")
    negative_prompt: str = option("", "what the views should not look like", metavar="TEXT")
    elevation: float = option(0.0, "how far from above the video was taken", low=-90, high=90, metavar="DEGREES")
    solver: str = option("ddim", "ddim: as published; dpm++: as good in fewer steps", choices=SOLVERS)
    interpolate: bool = option(True, "two more sets of Gaussians between neighbouring frames")
    chunk: int = option(16, "frames in one forward pass; fewer need less memory", low=2, high=64)
    compat: bool = option(False, "the released script's chunks, with its repeated and skipped frames")

    def __post_init__(self) -> None:
        check_options(self)

    def entries(self) -> tuple[str, ...]:
        """The zoo entries that a run loads."""
        return ("imagedream", "l4gm-recon", "l4gm-interp") if self.interpolate else ("imagedream", "l4gm-recon")
