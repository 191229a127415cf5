"""A training step: ``python benchmarks/train_step.py [--model mini|big] [--optimizer muon]``; prints markdown tables.

Whole steps, one after the other: the median time from the end of one to the end of the next (CUDA events, which nobody waits for
in between; the clock on a CPU), objects per second at that, how long the host needs on average to give a step to the GPU, and
peak memory. Then, where nothing hides them from the clock, the parts of a step (medians; the network's backward pass includes the
head's). What the GPU's clock was after the last step stands on the error stream.

*Ours* is what ``bozzetto train`` does (bf16, channels-last, one rasterizer call for all views, clipping, fused optimiser, moving
average, all of it recorded as two CUDA graphs, the next batch rendered beside the step); *network* records the network only,
and the parts are taken from it; *eager* is the same without graphs; *checkpointed* computes the activations of the network's
blocks anew in the backward pass, eagerly; *reference* is the usual way: plain PyTorch layers on channels-first maps in bf16, a
Python loop of one rasterizer call per view (gsplat's where it is installed, else our own), PyTorch's default AdamW, clipping, no
average, and each batch rendered before its step.
On a CPU the tiny debug network is measured, to see that nothing is broken.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from train_tasks import Batch, Big, Mini
from train_ways import Ours, Reference, Whole

from bozzetto.gaussians import Gaussians
from bozzetto.raster import Rendering

PARTS = (
    "batch to the device (lgm-mini: objects too, and their rendering)",
    "network, forward",
    "head",
    "rasterizer, forward",
    "losses, forward",
    "losses, backward",
    "rasterizer, backward",
    "network, backward",
    "clipping, optimiser, average",
)
BEGAN = time.perf_counter()


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


def leaf(tensor: Tensor) -> Tensor:
    """The same values, cut from what made them: the backward pass halts there and can be timed in parts."""
    return tensor.detach().requires_grad_()


def parts_of_a_step(way: Ours, batches: Iterator[Batch]) -> list[float]:
    """Milliseconds of each of :data:`PARTS`."""
    task, clock = way.task, Clock(way.device.type == "cuda")
    clock.mark()
    batch = next(batches)
    clock.mark()
    inputs = task.inputs(batch)
    way.record(inputs)
    with way.amp:
        made = way.model(*inputs)
    raw = leaf(made)
    clock.mark()
    splats = task.head(raw, batch)
    gaussians = Gaussians(*map(leaf, splats.tensors()))
    clock.mark()
    rendering = way.draw(gaussians, batch)
    drawn = Rendering(leaf(rendering.rgb), leaf(rendering.alpha), rendering.depth.detach())
    clock.mark()
    with way.amp:
        loss = task.loss(raw, gaussians, drawn, batch)
    clock.mark()
    loss.backward()
    clock.mark()
    torch.autograd.backward((rendering.rgb, rendering.alpha), (drawn.rgb.grad, drawn.alpha.grad))
    clock.mark()
    pairs = [(s, g.grad) for s, g in zip(splats.tensors(), gaussians.tensors()) if g.grad is not None]
    torch.autograd.backward([s for s, _ in pairs], [g for _, g in pairs])
    made.backward(raw.grad)
    clock.mark()
    way.update(0.999)
    clock.mark()
    return clock.spans()


def print_parts(way: Ours, steps: int, title: str) -> None:
    batches = way.task.batches(way.device)
    times = []
    try:
        for _ in range(steps + 3):
            times.append(parts_of_a_step(way, batches))
    finally:
        batches.close()
    medians = [statistics.median(column) for column in zip(*times[3:])]
    print(f"\n| {way.task.title}, {title} | ms |\n|---|---|")
    for part, median in zip(PARTS, medians):
        print(f"| {part} | {median:.1f} |")
    print(f"| **sum** | **{sum(medians):.1f}** |", flush=True)


def say(text: str) -> None:
    """What is being done, on the error stream: the first steps compile kernels and can take long."""
    print(f"[{time.perf_counter() - BEGAN:6.1f} s] {text}", file=sys.stderr, flush=True)


def state_of_the_gpu() -> str:
    """Clock, highest clock and power, if ``nvidia-smi`` is there: another clock than usual explains other times."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "clock unknown"
    which = f"--id=GPU-{torch.cuda.get_device_properties(0).uuid}"
    what = "--query-gpu=clocks.sm,clocks.max.sm,power.draw"
    told = subprocess.run([tool, which, what, "--format=csv,noheader"], capture_output=True, text=True, timeout=10)
    return f"clock, highest clock, power: {told.stdout.strip() or told.stderr.strip()}"


def whole_steps(way: Ours, steps: int, warm: int) -> str:
    """A row's cells: ms a step, objects per second, the host's ms, peak memory."""
    batches = way.task.batches(way.device)
    cuda = way.device.type == "cuda"
    try:
        for number in range(warm):
            say(f"step {number + 1} of {warm} that are not measured")
            way.advance(batches)
            if cuda:
                torch.cuda.synchronize()
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            for _ in range(2):  # memory for rendering beside a step is asked for anew
                way.advance(batches)
            torch.cuda.synchronize()
        say(f"{steps} steps")
        clock, start = Clock(cuda), time.perf_counter()
        clock.mark()
        for _ in range(steps):
            way.advance(batches)
            clock.mark()
        host = 1e3 * (time.perf_counter() - start) / steps
        spent = statistics.median(clock.spans())
        if cuda:
            say(state_of_the_gpu())
    finally:
        batches.close()
    # Reserved, not allocated: what recordings keep does not count as allocated.
    peak = f"{torch.cuda.max_memory_reserved() / 2**30:.1f}" if cuda else "–"
    return f"{spent:.1f} | {1e3 * way.task.batch_size / spent:.1f} | {host:.1f} | {peak}"


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument(
        "--model", choices=("mini", "big", "debug"), help="only this one (both on a GPU, debug on a CPU)"
    )
    parser.add_argument("--preset", help="of lgm-mini, instead of mini")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw", help="not the reference's")
    parser.add_argument("--batch", type=int, help="objects (mini 16, big 8, debug 2)")
    parser.add_argument("--steps", type=int, default=15, help="that are measured (15)")
    parser.add_argument("--warm", type=int, default=3, help="steps before them (3)")
    parser.add_argument(
        "--ways", nargs="+", choices=("ours", "network", "eager", "checkpointed", "reference"), help="default: all"
    )
    parser.add_argument(
        "--loop", choices=("gsplat", "own"), help="what the reference calls (gsplat where it is installed)"
    )
    parser.add_argument("--compile", action="store_true", help="only ours with a compiled network, beside it (minutes)")
    parser.add_argument("--no-parts", dest="parts", action="store_false", help="whole steps only")
    options = parser.parse_args()
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    gsplat = importlib.util.find_spec("gsplat") is not None if options.loop is None else options.loop == "gsplat"
    print(
        f"torch {torch.__version__}, {where}; the reference's loop calls {'gsplat' if gsplat else 'our own rasterizer'}"
    )
    models = [options.model] if options.model else ["mini", "big"] if device.type == "cuda" else ["debug"]
    ways = {
        "ours": lambda task: Whole(task, device, optimizer=options.optimizer),
        "network": lambda task: Ours(task, device, optimizer=options.optimizer),
        "eager": lambda task: Ours(task, device, graph=False, optimizer=options.optimizer),
        "checkpointed": lambda task: Ours(task, device, checkpointed=True, graph=False, optimizer=options.optimizer),
        "reference": lambda task: Reference(task, device, gsplat),
    }
    wanted = options.ways or (list(ways) if not options.compile else ["ours"])
    if options.compile:
        ways["compiled"] = lambda task: Ours(task, device, compiled=True, optimizer=options.optimizer)
        wanted.append("compiled")
    rows = []
    for name in models:
        if name == "big":
            task: Mini | Big = Big(options.batch or 8)
        else:
            kind = options.preset if name == "mini" and options.preset else name
            task = Mini(options.batch or {"mini": 16, "debug": 2}[name], kind)
        for title in wanted:
            say(f"{task.title}, {title}: making the network")
            way = ways[title](task)
            rows.append(f"| {task.title} | {title} | {whole_steps(way, options.steps, options.warm)} |")
            print(rows[-1], flush=True)
            if options.parts and title in ("network", "eager", "compiled"):
                print_parts(way, options.steps, title)
            del way
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print("\n| step | way | ms | objects/s | host, ms | peak memory, GiB |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
