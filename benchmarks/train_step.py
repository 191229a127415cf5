"""Parts of a training step of lgm-mini: ``python benchmarks/train_step.py [--compile]``; prints a markdown table.

The same objects serve every step, so that generating them, which worker processes do ahead of time, is not measured.
The losses are those of ``bozzetto train``. Medians over ``--steps`` steps after two of warm-up: CUDA events on a GPU
(bf16, the true network), the clock on a CPU (float32, the tiny debug network, to see that nothing is broken).
The network's backward pass includes the head's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from bozzetto.gaussians import Gaussians
from bozzetto.raster import Rendering, rasterize
from bozzetto.systems.lgm.heads import ray_head
from bozzetto.systems.lgm.inputs import mini_inputs
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.recipe import MiniRecipe
from bozzetto.training.loop import TrainConfig, parameter_groups

PARTS = (
    "object upload and rendering",
    "network, forward",
    "head",
    "rasterizer, forward",
    "losses, forward",
    "losses, backward",
    "rasterizer, backward",
    "network, backward",
    "optimiser",
)


class Clock:
    """Milliseconds between marks."""

    def __init__(self, cuda: bool) -> None:
        self.cuda, self.marks = cuda, []

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def spans(self) -> list[float]:
        pairs = list(zip(self.marks, self.marks[1:]))
        if self.cuda:
            torch.cuda.synchronize()
            return [a.elapsed_time(b) for a, b in pairs]
        return [1e3 * (b - a) for a, b in pairs]


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, cut from what made them: the backward pass halts there and can be timed in parts."""
    return tensor.detach().requires_grad_()


def one_step(
    recipe: MiniRecipe,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[dict[str, Any]],
    device: torch.device,
) -> list[float]:
    """Milliseconds of each of :data:`PARTS`."""
    cuda = device.type == "cuda"
    clock = Clock(cuda)
    amp = torch.autocast(device.type, torch.bfloat16, enabled=cuda)
    clock.mark()
    batch = next(batches)
    clock.mark()
    with amp:
        made = model(mini_inputs(batch["input_rgba"], batch["input_slots"], batch["known"], recipe.config.input_size))
    raw = leaf(made)
    clock.mark()
    splats = ray_head(raw, batch["slots"], batch["input_rgba"], batch["known"])
    gaussians = Gaussians(*map(leaf, splats.tensors()))
    clock.mark()
    rendering = rasterize(gaussians, batch["cameras"], recipe.render_size)
    drawn = Rendering(leaf(rendering.rgb), leaf(rendering.alpha), rendering.depth.detach())
    clock.mark()
    with amp:
        loss, _ = recipe.objective(raw, gaussians, drawn, batch, 0.5)
    clock.mark()
    loss.backward()
    clock.mark()
    torch.autograd.backward((rendering.rgb, rendering.alpha), (drawn.rgb.grad, drawn.alpha.grad))
    clock.mark()
    pairs = [(s, g.grad) for s, g in zip(splats.tensors(), gaussians.tensors()) if g.grad is not None]
    torch.autograd.backward([s for s, _ in pairs], [g for _, g in pairs])
    made.backward(raw.grad)
    clock.mark()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    clock.mark()
    return clock.spans()


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--preset", help="network size (mini on a GPU, debug on a CPU)")
    parser.add_argument("--batch", type=int, help="objects (16 on a GPU, 2 on a CPU)")
    parser.add_argument("--steps", type=int, default=20, help="that are measured (20)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    options = parser.parse_args()
    device = torch.device(options.device)
    name = options.preset or ("mini" if device.type == "cuda" else "debug")
    batch = options.batch or (16 if device.type == "cuda" else 2)
    recipe = MiniRecipe(preset=name, batch_size=batch, block=batch, repeats=10**9, render_size=preset(name).input_size)
    torch.manual_seed(0)
    model = recipe.build().to(device)
    if device.type == "cuda":  # as the training loop does
        model = model.to(memory_format=torch.channels_last)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if options.compile:
        model.compile(dynamic=False)
    config = TrainConfig(out="")
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=1e-5, betas=config.betas, fused=device.type == "cuda"
    )
    batches = recipe.batches(0, 0, 0, 1, device)
    try:
        times = [one_step(recipe, model, optimizer, batches, device) for _ in range(options.steps + 2)][2:]
    finally:
        batches.close()
    medians = [statistics.median(column) for column in zip(*times)]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    views = 4 + recipe.novel_views
    print(f"torch {torch.__version__}, {where}; preset {name}, {batch} objects, {views} views of {recipe.render_size}²")
    print(f"\n| part | {'--compile' if options.compile else 'eager'}, ms |\n|---|---|")
    for part, median in zip(PARTS, medians):
        print(f"| {part} | {median:.1f} |")
    total = sum(medians)
    print(f"| **sum** | **{total:.1f}** |\n| objects per second | {1e3 * batch / total:.1f} |")
    if device.type == "cuda":
        print(f"| peak memory, GB | {torch.cuda.max_memory_allocated() / 1e9:.1f} |")


if __name__ == "__main__":
    main()
