"""Time of the diffusion models on a CUDA device: ``python benchmarks/diffusion.py [--only NAME,...] [--profile]``.

Networks have the published sizes and random weights, made on the device, so no file is read. Times are medians in
milliseconds between CUDA events after a warm-up; "photo" is measured on the host's clock, as a user sees it.

* imagedream, mvdream: one step (10 or 8 latents of 32², guidance included), and 30 of them.
* vae: a picture of 256² encoded, four views decoded, four pictures of 512² encoded with the gradient of their pixels.
* encoders: CLIP's text and image towers as ImageDream uses them.
* photo: a cut-out photo (tensor) -> ImageDream (30 steps) -> LGM -> PLY, everything loaded, by stages.
* dreamer: one iteration of GaussianDreamer (4 views of 512², 60,000 splats, Stable Diffusion 2.1's sizes), by stages.

``--profile`` also lists the kernels that take longest. ``--micro`` runs toy sizes on the CPU, to try this script.
"""

from __future__ import annotations

import argparse
import time

import torch
from diffusion_networks import Networks
from diffusion_tasks import STEPS, time_dreamer, time_photo
from stages import Clock, Report, median_spans
from torch import Tensor

from bozzetto.systems.mvdream.denoising import Condition

NAMES = ("imagedream", "mvdream", "vae", "encoders", "photo", "dreamer")


def time_steps(kind: str, networks: Networks, report: Report) -> None:
    """One guided step and 30 of them."""
    model = networks.diffusion(kind)
    views, device = model.views, networks.device
    g = torch.Generator(device).manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, device=device)

    def condition() -> Condition:
        if kind == "mvdream":
            return Condition(draw(1, 77, 1024).to(networks.dtype))
        tokens = draw(1, 16, 1024).to(networks.dtype)
        return Condition(draw(1, 77, 1024).to(networks.dtype), tokens, draw(1, 4, 32, 32))

    start, positive, negative = draw(1, views, 4, 32, 32), condition(), condition()
    steps = 3 if networks.micro else STEPS

    def run(clock: Clock) -> None:
        model.denoise(start, positive, negative, steps=steps)
        clock.mark("steps")

    begin = time.perf_counter()
    run(Clock(False))
    report.add(f"{kind}: first call, {steps} steps", 1e3 * (time.perf_counter() - begin))
    spent = median_spans(run, report.cuda, 1, 1 if networks.micro else 5)["steps"]
    report.add(f"{kind}: {steps} steps of {2 * views} latents of 32²", spent)
    report.add(f"{kind}: one step", spent / steps)
    report.profile(kind, lambda: model.denoise(start, positive, negative, steps=3))


def time_vae(networks: Networks, report: Report) -> None:
    """Encoding and decoding, and encoding with gradients."""
    from bozzetto.systems.gaussian_dreamer.diffusion_prior import encode_pictures
    from bozzetto.systems.mvdream.pictures import decode_latents, latent_moments

    vae, device = networks.vae(), networks.device
    big = 64 if networks.micro else 512
    photo, latents = torch.rand(256, 256, 3, device=device), torch.randn(4, 4, 32, 32, device=device)
    pictures, noise = torch.rand(4, 3, big, big, device=device), torch.randn(4, 4, big // 8, big // 8, device=device)

    def run(clock: Clock) -> None:
        with torch.no_grad():
            latent_moments(vae, photo, 256)
            clock.mark("vae: encode a picture of 256²")
            decode_latents(vae, latents)
            clock.mark("vae: decode four views of 256²")
        rgb = pictures.clone().requires_grad_()
        out = encode_pictures(vae, rgb, noise)
        clock.mark(f"vae: encode four pictures of {big}² for gradients")
        out.sum().backward()
        clock.mark("vae: gradient of their pixels")

    for name, spent in median_spans(run, report.cuda, 2, 1 if networks.micro else 10).items():
        report.add(name, spent)
    report.profile("vae", lambda: run(Clock(False)))


def time_encoders(networks: Networks, report: Report) -> None:
    """CLIP's towers."""
    model = networks.diffusion("imagedream")
    photo = torch.rand(256, 256, 3)

    def run(clock: Clock) -> None:
        model.encode_text(["", ""])
        clock.mark("encoders: two prompts")
        model.features([photo])
        clock.mark("encoders: one picture")

    for name, spent in median_spans(run, report.cuda, 2, 1 if networks.micro else 10).items():
        report.add(name, spent)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--profile", action="store_true", help="list the slowest kernels")
    parser.add_argument("--micro", action="store_true", help="toy sizes, on the CPU")
    options = parser.parse_args(arguments)
    if not options.micro and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --micro tries the script on the CPU")
    names = options.only.split(",") if options.only else list(NAMES)
    if unknown := set(names) - set(NAMES):
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}")
    device = "cpu" if options.micro else "cuda"
    networks, report = Networks(device, options.micro), Report(device == "cuda", options.profile)
    what = torch.cuda.get_device_name() if device == "cuda" else "CPU, toy sizes"
    print(f"{what}, torch {torch.__version__}\n\n| what | ms |\n|---|---|", flush=True)
    tasks = {
        "imagedream": lambda: time_steps("imagedream", networks, report),
        "mvdream": lambda: time_steps("mvdream", networks, report),
        "vae": lambda: time_vae(networks, report),
        "encoders": lambda: time_encoders(networks, report),
        "photo": lambda: time_photo(networks, report),
        "dreamer": lambda: time_dreamer(networks, report),
    }
    failed = 0
    for name in names:
        try:
            tasks[name]()
        except Exception as error:  # the others are still worth their time
            failed += 1
            print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
