"""What a user can set for LGM. The defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass

from ...options import check_options, option

# Of the authors' demo, where text is an input.
NEGATIVE_PROMPT = (
    "ugly, blurry, pixelated obscure, unnatural colors, poor lighting, dull, unclear, cropped, lowres, low quality, "
    "artifacts, duplicate"
)
SOLVERS = ("ddim", "dpm++")


@dataclass(frozen=True)
class PhotoOptions:
    """Options of a photo: ImageDream makes four views of it, LGM makes Gaussians of the views."""

    steps: int = option(30, "denoising steps; about 12 are enough for dpm++", low=1, high=999)
    guidance: float = option(
        5.0, "how strongly the views follow the photo and the prompt; 1: not amplified", low=0, high=100
    )
    prompt: str = option("", "what the photo shows, in words; may stay empty", metavar="TEXT")
    negative_prompt: str = option("", "what the views should not look like", metavar="TEXT")
    elevation: float = option(0.0, "how far from above the photo was taken", low=-90, high=90, metavar="DEGREES")
    solver: str = option("ddim", "ddim: as published; dpm++: as good in fewer steps", choices=SOLVERS)
    candidates: int = option(
        1, "sets of views to make; the one that LGM can bring into agreement best is kept", low=1, high=64
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TextOptions:
    """Options of a prompt: MVDream makes four views, LGM makes Gaussians of them."""

    steps: int = option(30, "denoising steps; about 12 are enough for dpm++", low=1, high=999)
    guidance: float = option(7.5, "how strongly the views follow the prompt; 1: not amplified", low=0, high=100)
    negative_prompt: str = option(NEGATIVE_PROMPT, "what the views should not look like", metavar="TEXT")
    elevation: float = option(0.0, "from how far above the four views are made", low=-90, high=90, metavar="DEGREES")
    solver: str = option("ddim", "ddim: as published; dpm++: as good in fewer steps", choices=SOLVERS)
    candidates: int = option(
        1, "sets of views to make; the one that LGM can bring into agreement best is kept", low=1, high=64
    )
    cut_views: bool = option(True, "cut every view out of its background and centre the object in it")

    def __post_init__(self) -> None:
        check_options(self)
