"""What a user can set for GaussianDreamer."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...errors import InputError
from ...options import check_options, option

NEGATIVE = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, cropped, lowres, "
    "low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, dehydrated, bad proportions, "
    "unfocused"
)
VIEWS_OF_MVDREAM = 4


@dataclass(frozen=True)
class TextOptions:
    """Options of a prompt; the defaults are the published ones, except a size of 512 pixels instead of 1024."""

    steps: int = option(1200, "steps of the optimisation", low=1, high=100_000)
    guidance: float = option(100.0, "how strongly the prompt pulls", low=0.0, high=1000.0)
    guidance_form: str = option(
        "published",
        "published: text + guidance * (text - negative); usual: negative + guidance * (text - negative)",
        choices=("published", "usual"),
    )
    batch: int = option(4, "views rendered in every step; a multiple of 4 for mvdream", low=1, high=64)
    size: int = option(512, "side of the rendered pictures in pixels; published 1024", low=16, high=4096)
    prior: str = option("sd", "diffusion model: Stable Diffusion 2.1 base, or MVDream", choices=("sd", "mvdream"))
    method: str = option("sds", "score distillation sampling, or score Jacobian chaining", choices=("sds", "sjc"))
    weighting: str = option(
        "sds", "weight of a noise level in sds: 1 - a, 1, or sqrt(a) (1 - a)", choices=("sds", "uniform", "fantasia3d")
    )
    perp_neg: str = option(
        "off",
        "perpendicular negative prompts for the view directions, for fewer second faces (sd only); compat repeats the "
        "published pairing of negatives with the wrong views",
        choices=("off", "on", "compat"),
    )
    negative_prompt: str = option(NEGATIVE, "what the pictures should not be")
    start: str = option("shap-e", "shap-e, or a splat, mesh or point-cloud file to start from", metavar="shap-e|FILE")
    start_guidance: float = option(15.0, "guidance of Shap-E", low=0.0, high=100.0)
    start_steps: int = option(64, "steps of Shap-E", low=2, high=1000)
    grow_candidates: int = option(1_000_000, "random points tried around the start cloud", low=0, high=100_000_000)
    grow_reach: float = option(0.01, "distance to the start cloud (about 1.25 wide) to be kept", low=1e-6, high=1.0)
    colour_noise: float = option(0.2, "largest amount added to a grown point's colour", low=0.0, high=1.0)
    densify_threshold: float = option(2e-4, "screen-space gradient from which a splat is cloned or split", low=0.0)
    grad_scale: float = option(
        65536.0,
        "factor on that gradient; 65536 is what mixed precision does to it in the published code, 1 the plain meaning",
        low=1e-9,
    )
    max_gaussians: int = option(1_000_000, "densification stops at this many splats", low=1000)
    max_radius: float = option(
        0.0, "drop splats whose radius on the screen exceeded this many pixels (from step 501); 0 keeps them", low=0.0
    )
    lambda_sparsity: float = option(0.0, "weight of the loss that pulls empty space clear", low=0.0)
    lambda_opaque: float = option(0.0, "weight of the loss that pulls every pixel to full or empty", low=0.0)
    save_every: int = option(100, "steps between saved states (to go on after a stop); 0 saves none", low=0)
    preview_every: int = option(100, "steps between preview pictures; 0 draws none", low=0)
    save_memory: bool = option(False, "encode one picture at a time, twice: half the memory, a little slower")

    def __post_init__(self) -> None:
        check_options(self)
        if not self.start.strip():
            raise InputError("--start is empty; give shap-e or the path of a splat, mesh or point-cloud file")
        if self.start != "shap-e" and not os.path.exists(self.start):  # asked before gigabytes of weights are fetched
            raise InputError(f"--start {self.start} does not exist; give shap-e or a splat, mesh or point-cloud file")
        if self.prior == "mvdream":
            if self.batch % VIEWS_OF_MVDREAM:
                raise InputError(f"--batch must be a multiple of 4 with --prior mvdream, got {self.batch}")
            if self.perp_neg != "off":
                raise InputError("--perp-neg works with --prior sd only; MVDream is told the views by their cameras")
        if self.method == "sjc" and self.weighting != "sds":
            raise InputError("--weighting belongs to --method sds; leave it out with --method sjc")

    def entries(self) -> tuple[str, ...]:
        """The zoo entries that a run loads."""
        start = ("clip-vit-l14", "shap-e-text-cap3d", "shap-e-transmitter") if self.start == "shap-e" else ()
        return (*start, "sd21-base" if self.prior == "sd" else "mvdream")
