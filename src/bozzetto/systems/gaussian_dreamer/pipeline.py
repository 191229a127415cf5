"""GaussianDreamer on one prompt: a start, 1200 steps of score distillation, Gaussians."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...asset import Asset
from ...errors import InputError
from ...job import Job
from ..shap_e.model import load_shap_e
from .diffusion_prior import MVDream, StableDiffusion, load_mvdream_prior, load_stable_diffusion
from .optimise import Optimiser, RunState
from .options import TextOptions
from .start import Start, start_from_file, start_from_shap_e
from .state import load_run, save_run, write_preview

SHAP_E = "shap-e"
# Options that do not change what a run computes at a step.
_FREE = ("steps", "save_every", "preview_every", "save_memory")


def from_text(prompt: str, options: TextOptions, job: Job) -> Asset:
    """A prompt -> Gaussians; y up with the front on +z inside the unit cube for Shap-E's start, else where the start was.

    Raises:
        InputError: an unusable start, or a workspace that holds another unfinished run. CheckpointError: bad weights.
        BozzettoError: the optimisation lost its Gaussians or gave NaN for too long.
    """
    identity = run_identity(prompt, options, job)
    saved = None
    if job.workspace is not None and options.save_every:
        saved = load_run(job.workspace, identity, options.steps, job.device)
    if saved is None:
        start = make_start(prompt, options, job)
        if len(start.gaussians) > options.max_gaussians:
            raise InputError(
                f"the start has {len(start.gaussians):,} splats, more than --max-gaussians {options.max_gaussians:,}; "
                "raise that, lower --grow-candidates, or thin the start"
            )
        state, back, source = RunState.begin(start.gaussians, job.device), start.back, start.source
    else:
        state, back, source = saved.state, saved.back, saved.source
        job.tell(f"going on from step {state.step}", state.step / options.steps)
    about: dict[str, Any] = {"start": source, "resumed_from_step": 0 if saved is None else state.step}
    if state.step < options.steps:
        optimise(prompt, options, job, state, back, source, identity, about)
    gaussians = state.parameters.gaussians().detach().transformed(back)  # on the device: film and mesh are made there
    about |= {"steps": state.step, "non_finite_gradients": int(state.bad_entries)}
    job.report["gaussian_dreamer"] = about
    return Asset(gaussians)


def optimise(
    prompt: str,
    options: TextOptions,
    job: Job,
    state: RunState,
    back: Tensor,
    source: str,
    identity: dict[str, Any],
    about: dict[str, Any],
) -> None:
    """Load the diffusion model and run the steps that are left, in place; previews and state go to the workspace."""
    with job.stage("load_model"):
        prior = load_prior(options, job)
        texts, used = prior.embed(prompt, options.negative_prompt)
        prior.forget_text_encoder()
    if used != prompt:
        about["prompt_used"] = used
        job.tell(f"the prompt is too long for the model; used: {used[:80]}...", state.step / options.steps)

    def preview(at: RunState) -> None:
        write_preview(job.workspace, at.parameters.gaussians(), at.step)

    def save(at: RunState) -> None:
        save_run(job.workspace, at, back, source, identity, options.steps)

    writes = job.workspace is not None
    with job.stage("optimise"):
        Optimiser(prior, texts, options, job.seed, job.device).run(
            state, progress=job.tell, preview=preview if writes else None, save=save if writes else None
        )


def load_prior(options: TextOptions, job: Job) -> StableDiffusion | MVDream:
    """The diffusion model that the options name."""
    job.tell(f"loading {'stable diffusion' if options.prior == 'sd' else 'mvdream'}", 0.0)
    if options.prior == "sd":
        prior: StableDiffusion | MVDream = load_stable_diffusion(job.locate("sd21-base"), job.device)
    else:
        prior = load_mvdream_prior(job.locate("mvdream"), job.device)
    prior.save_memory = options.save_memory
    return prior


def make_start(prompt: str, options: TextOptions, job: Job) -> Start:
    """Shap-E's points for the prompt, or what is in the file that the options name; grown to a dense cloud."""
    grow = {
        "candidates": options.grow_candidates,
        "reach": options.grow_reach,
        "colour_noise": options.colour_noise,
    }
    if options.start != SHAP_E:
        with job.stage("start"):
            job.tell("reading the start", 0.0)
            return start_from_file(options.start, seed=job.seed, **grow)
    vertices, rgb = shap_e_points(prompt, options, job)
    with job.stage("start"):
        job.tell("growing points", 0.0)
        return start_from_shap_e(vertices, rgb, **grow)


def run_identity(prompt: str, options: TextOptions, job: Job) -> dict[str, Any]:
    """What must be equal for a run to go on: prompt, seed, weights, and every option that changes the result."""
    out: dict[str, Any] = {"prompt": prompt, "seed": job.seed}
    out |= {k: v for k, v in vars(options).items() if k not in _FREE}
    for entry, path in job.weights.items():
        out[f"weights {entry}"] = str(path)
    if options.start != SHAP_E and Path(options.start).is_file():
        digest = hashlib.sha256(Path(options.start).read_bytes()).hexdigest()
        out["start"] = f"{options.start} ({digest[:16]})"
    return out


@torch.no_grad()
def shap_e_points(prompt: str, options: TextOptions, job: Job) -> tuple[Tensor, Tensor]:
    """The vertices [V, 3] of Shap-E's mesh for the prompt, in its axes, and their linear-light colours [V, 3].

    The text model is the one that Cap3D fine-tuned, as published; only one part is in memory at a time.
    """
    with job.stage("load_model"):
        job.tell("loading shap-e", 0.0)
        text = load_shap_e(text=job.locate("shap-e-text-cap3d"), clip=job.locate("clip-vit-l14"), device=job.device)
    with job.stage("start"):
        job.tell("sampling the start with shap-e", 0.0)
        latent = text.sample_text([prompt], options.start_guidance, options.start_steps, job.generator())[0]
    del text
    with job.stage("load_model"):
        decoder = load_shap_e(transmitter=job.locate("shap-e-transmitter"), device=job.device)
    with job.stage("start"):
        return decoder.points(latent)
