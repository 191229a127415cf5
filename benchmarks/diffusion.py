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
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import full_size
import published_configs as published
import torch
from torch import Tensor, nn

from bozzetto.files.ply import write_ply
from bozzetto.gaussians import Gaussians
from bozzetto.nn.layout import for_inference
from bozzetto.systems.gaussian_dreamer.diffusion_prior import StableDiffusion
from bozzetto.systems.gaussian_dreamer.optimise import Optimiser, RunState
from bozzetto.systems.gaussian_dreamer.options import TextOptions
from bozzetto.systems.gaussian_dreamer.prompts import ViewTexts
from bozzetto.systems.gaussian_dreamer.stable_diffusion import network_config
from bozzetto.systems.mvdream.checkpoint import unet_config
from bozzetto.systems.mvdream.diffusion import Condition, MultiViewDiffusion
from bozzetto.systems.mvdream.network import MultiViewUNet
from bozzetto.systems.mvdream.pictures import ClipPreprocess
from bozzetto.systems.mvdream.schedule import NoiseSchedule
from bozzetto.systems.mvdream.vae import VAE, VAEConfig
from bozzetto.zoo.libraries import load_tokenizer, materialize

STEPS = 30
SPLATS = 60_000
NAMES = ("imagedream", "mvdream", "vae", "encoders", "photo", "dreamer")


def randomise(module: nn.Module) -> nn.Module:
    """Random weights that keep activations normal; frozen, in evaluation mode."""
    for name, tensor in module.named_parameters():
        if tensor.dim() >= 2:
            tensor.data.normal_(0.0, tensor[0].numel() ** -0.5)
        elif name.endswith("weight"):
            tensor.data.normal_(1.0, 0.1)
        else:
            tensor.data.normal_(0.0, 0.05)
    return module.eval().requires_grad_(False)


class Networks:
    """Networks of published sizes (or toy ones) with random weights on a device, each made once."""

    def __init__(self, device: str, micro: bool) -> None:
        self.device, self.micro = torch.device(device), micro
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        self.made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            begin = time.perf_counter()
            self.made[name] = make()
            print(f"made {name} in {time.perf_counter() - begin:.1f} s", file=sys.stderr, flush=True)
        return self.made[name]

    def put(self, module: nn.Module) -> nn.Module:
        """A module of the meta device with memory and random weights."""
        torch.manual_seed(0)
        return randomise(materialize(module, self.device, self.dtype))

    def vae(self) -> VAE:
        small = {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1} if self.micro else {}

        def make() -> VAE:
            with torch.device("meta"):
                module = VAE(VAEConfig.from_config(published.VAE | small))
            return for_inference(self.put(module))

        return self.once("vae", make)

    def unet(self, kind: str) -> nn.Module:
        small = {"model_channels": 64, "channel_mult": [1, 1, 2, 2]} if self.micro else {}
        config = published.UNET | small | ({"ip_dim": 16} if kind == "imagedream" else {})

        def make() -> nn.Module:
            with torch.device("meta"):
                module = MultiViewUNet(unet_config(config))
            return for_inference(self.put(module))

        return self.once(f"unet {kind}", make)

    def sd_unet(self) -> nn.Module:
        small = {"block_out_channels": [64, 64, 128, 128], "attention_head_dim": [1, 1, 2, 2]} if self.micro else {}

        def make() -> nn.Module:
            with torch.device("meta"):
                module = MultiViewUNet(network_config(published.SD_UNET | small))
            return for_inference(self.put(module))

        return self.once("unet sd", make)

    def text_encoder(self) -> nn.Module:
        small = {"num_hidden_layers": 1} if self.micro else {}

        def make() -> nn.Module:
            import transformers

            with torch.device("meta"):
                config = transformers.CLIPTextConfig.from_dict(published.TEXT_ENCODER | small)
                module = transformers.CLIPTextModel(config)
            return self.put(module)

        return self.once("text", make)

    def image_encoder(self) -> nn.Module:
        small = {"num_hidden_layers": 2} if self.micro else {}

        def make() -> nn.Module:
            import transformers

            with torch.device("meta"):
                config = transformers.CLIPVisionConfig.from_dict(published.IMAGE_ENCODER | small)
                module = transformers.CLIPVisionModel(config)
            return self.put(module)

        return self.once("image", make)

    def tokenizer(self) -> Any:
        def make() -> Any:
            with tempfile.TemporaryDirectory() as folder:
                for path, content in full_size.tokenizer_files().items():
                    (Path(folder) / path).write_text(content, encoding="utf-8")
                return load_tokenizer(Path(folder))

        return self.once("tokenizer", make)

    def diffusion(self, kind: str) -> MultiViewDiffusion:
        """ImageDream or MVDream."""
        image = kind == "imagedream"
        return MultiViewDiffusion(
            self.unet(kind),
            self.vae(),
            self.text_encoder(),
            self.tokenizer(),
            NoiseSchedule.from_config(published.SCHEDULER),
            self.image_encoder() if image else None,
            ClipPreprocess.from_config(published.FEATURE_EXTRACTOR) if image else None,
            self.device,
        )

    def lgm(self) -> nn.Module:
        from bozzetto.systems.lgm.network import LGM, LGMConfig
        from bozzetto.systems.lgm.presets import BIG

        small = {"down_channels": (32, 32, 64, 64, 64, 64), "up_channels": (64, 64, 64, 64, 32)}

        def make() -> nn.Module:
            with torch.device("meta"):
                module = LGM(LGMConfig(**{**vars(BIG), **small}) if self.micro else BIG)
            module = self.put(module)
            full_size.shape_lgm(dict(module.named_parameters()))
            return for_inference(module)

        return self.once("lgm", make)


class Clock:
    """Milliseconds between marks, by CUDA events or the host's clock."""

    def __init__(self, cuda: bool) -> None:
        self.cuda, self.marks = cuda, []

    def mark(self, name: str) -> None:
        """End the span called ``name``."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def spans(self) -> dict[str, float]:
        """Sums by name, and the whole."""
        if self.cuda:
            torch.cuda.synchronize()
        out: dict[str, float] = {}
        for (_, a), (name, b) in pairwise(self.marks):
            out[name] = out.get(name, 0.0) + (a.elapsed_time(b) if self.cuda else 1e3 * (b - a))
        return out


def median_spans(run: Callable[[Clock], None], cuda: bool, warm_up: int, runs: int) -> dict[str, float]:
    """Medians over runs of each span of ``run``, which marks its ends."""
    spans = []
    for number in range(warm_up + runs):
        clock = Clock(cuda)
        clock.mark("")
        run(clock)
        if number >= warm_up:
            spans.append(clock.spans())
        else:
            clock.spans()
    names = dict.fromkeys(name for s in spans for name in s)
    return {name: statistics.median(s.get(name, 0.0) for s in spans) for name in names}


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
        model._features([photo])
        clock.mark("encoders: one picture")

    for name, spent in median_spans(run, report.cuda, 2, 1 if networks.micro else 10).items():
        report.add(name, spent)


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
        features = model._features([picture])
        model.unet.image_embed(features)
        synchronize()
        clock.mark("photo: CLIP picture")
        moments = model._moments([picture], 256)
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


class Report:
    """Rows of a table, printed as they come."""

    def __init__(self, cuda: bool, profiling: bool) -> None:
        self.cuda, self.profiling = cuda, profiling

    def add(self, name: str, value: float) -> None:
        print(f"| {name} | {value:,.2f} |", flush=True)

    def profile(self, name: str, run: Callable[[], object]) -> None:
        """The kernels of ``run`` that take longest, by name."""
        if not self.profiling:
            return
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
            run()
            if self.cuda:
                torch.cuda.synchronize()
        kernels = [e for e in seen.events() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        kernels.sort(key=lambda e: e.time_range.start)
        times: dict[str, list[float]] = {}
        gaps: list[tuple[float, str, str]] = []
        for e in kernels:
            times.setdefault(e.name, []).append((e.time_range.end - e.time_range.start) / 1e3)
        for e, after in pairwise(kernels):
            gaps.append(((after.time_range.start - e.time_range.end) / 1e3, e.name[:50], after.name[:50]))
        whole, idle = sum(map(sum, times.values())), sum(g for g, *_ in gaps if g > 0)
        print(f"\nkernels of {name}: {whole:.2f} ms, {len(kernels)} launches, {idle:.2f} ms idle between them\n")
        for kernel, each in sorted(times.items(), key=lambda item: -sum(item[1]))[:40]:
            print(f"{sum(each):9.3f} ms {len(each):6d} x  {kernel[:150]}")
        print("\nlongest gaps, ms")
        for gap, before, after in sorted(gaps, reverse=True)[:12]:
            print(f"{gap:9.3f}  {before}  ->  {after}")
        print(flush=True)


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
