"""Photo to splats and an iteration of GaussianDreamer, by stages; :mod:`diffusion` runs them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published_configs as published
import torch
from diffusion_networks import Networks
from stages import Clock, Report, median_spans
from torch import Tensor, nn

from bozzetto.files.ply import write_ply
from bozzetto.gaussians import Gaussians
from bozzetto.systems.gaussian_dreamer.diffusion_prior import StableDiffusion
from bozzetto.systems.gaussian_dreamer.optimise import Optimiser, RunState
from bozzetto.systems.gaussian_dreamer.options import TextOptions
from bozzetto.systems.gaussian_dreamer.prompts import ViewTexts
from bozzetto.systems.mvdream.denoising import Condition
from bozzetto.systems.mvdream.schedule import NoiseSchedule

STEPS = 30
SPLATS = 60_000


def time_photo(networks: Networks, report: Report) -> None:
    """From a cut-out to a PLY file, everything loaded."""
    from bozzetto.systems.lgm.imagine import square_photo
    from bozzetto.systems.lgm.loaded import LoadedLGM
    from bozzetto.systems.lgm.options import PhotoOptions

    loaded = LoadedLGM(networks.diffusion("imagedream"), networks.lgm())
    model = loaded.diffusion
    size, steps = (64, 2) if networks.micro else (512, STEPS)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    alpha = (x**2 + y**2 < 0.5).float()
    photo = torch.stack([0.5 + 0.4 * x, 0.5 + 0.4 * y, 0.5 + 0 * x, alpha], dim=-1)

    options = PhotoOptions(steps=steps)
    picture = square_photo(photo)

    def synchronize() -> None:
        if report.cuda:
            torch.cuda.synchronize()

    def parts(clock: Clock) -> None:
        """What the whole consists of, each waited for."""
        text = model.encode_text(["", ""])
        synchronize()
        clock.mark("photo: text")
        features = model.features([picture])
        model.unet.image_embed(features)
        synchronize()
        clock.mark("photo: CLIP picture")
        moments = model.moments([picture], 256)
        synchronize()
        clock.mark("photo: VAE picture")
        tokens = torch.zeros(1, 16, 1024, device=networks.device, dtype=networks.dtype)
        condition = Condition(text[:1], tokens, moments[0][0][None])
        latents = model.denoise(torch.randn(1, 5, 4, 32, 32), condition, condition, steps=steps)
        synchronize()
        clock.mark(f"photo: {steps} steps")
        model.decode(latents[:, :4])
        synchronize()
        clock.mark("photo: VAE views")

    def whole(clock: Clock) -> None:
        with tempfile.TemporaryDirectory() as folder:
            gaussians = loaded(photo, options=options)
            synchronize()
            clock.mark("photo: ImageDream and LGM")
            write_ply(gaussians, Path(folder) / "splats.ply", layout="lgm")
            clock.mark("photo: PLY")

    runs = 1 if networks.micro else 7
    for name, spent in median_spans(parts, False, 0, 1).items():
        report.add(f"{name}, first call", spent)
    for name, spent in median_spans(parts, False, 2, runs).items():
        report.add(name, spent)
    spans = median_spans(whole, False, 3, runs)
    for name, spent in spans.items():
        report.add(name, spent)
    report.add("photo: whole", sum(spans.values()))


def time_dreamer(networks: Networks, report: Report) -> None:
    """One iteration of GaussianDreamer."""
    device = networks.device
    unet, vae, schedule = networks.sd_unet(), networks.vae(), NoiseSchedule.from_config(published.SCHEDULER)
    prior = StableDiffusion(unet, vae, None, None, schedule, side=8 if networks.micro else 64)
    g = torch.Generator().manual_seed(2)
    texts = ViewTexts(*(torch.randn(4, 77, 1024, generator=g).to(device) for _ in range(2)))
    count = 500 if networks.micro else SPLATS
    direction = nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    splats = Gaussians.from_rgb(
        0.5 * direction,
        torch.full((count, 3), 0.006),
        torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        torch.full((count,), 0.5),
        torch.rand(count, 3, generator=g),
    )
    options = TextOptions(size=64 if networks.micro else 512)
    clocks: list[Clock] = []

    class Watched:
        """The prior, with marks at both ends of its calls and where the gradient reaches the pictures."""

        together, size, alphas_cumprod = prior.together, prior.size, prior.alphas_cumprod
        latent_shape = prior.latent_shape

        def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
            clocks[-1].mark("dreamer: render")
            rgb.register_hook(lambda gradient: clocks[-1].mark("dreamer: VAE, backward"))
            out = prior.encode(rgb, noise)
            clocks[-1].mark("dreamer: VAE, forward")
            return out

        def epsilon(self, cameras: Any) -> Callable[..., Tensor]:
            predict = prior.epsilon(cameras)

            def watched(*inputs: Tensor) -> Tensor:
                clocks[-1].mark("dreamer: noise, texts")
                out = predict(*inputs)
                clocks[-1].mark("dreamer: UNet")
                return out

            return watched

    optimiser = Optimiser(Watched(), texts, options, 0, device)
    state = RunState.begin(splats, device)

    def run(clock: Clock) -> None:
        clocks.append(clock)
        optimiser.step(state)
        clock.mark("dreamer: render backward, statistics, Adam")

    warm_up, runs = (1, 1) if networks.micro else (4, 15)
    spans = median_spans(run, report.cuda, warm_up, runs)
    for name, spent in spans.items():
        report.add(name, spent)
    report.add("dreamer: sum of stages", sum(spans.values()))
    begin = time.perf_counter()
    for _ in range(runs):
        run(Clock(report.cuda))
    float(state.bad_entries)
    each = 1e3 * (time.perf_counter() - begin) / runs
    report.add("dreamer: one iteration, host's clock", each)
    report.add("dreamer: 1,200 iterations, s", 1.2 * each)
    report.profile("dreamer", lambda: optimiser.step(state))
