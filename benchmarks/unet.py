"""The U-Nets of LGM, lgm-mini and L4GM on a GPU: ``python benchmarks/unet.py [--only NAME] [--profile]``; prints markdown tables.

Random weights at the published widths. "plain": PyTorch's own layers, half-precision weights, channels-last; "kernels": those
of ``bozzetto.nn``; "graph": the same, replayed as a CUDA graph. Warm times are medians by CUDA events, first calls by the
clock and include compilation where Triton's cache is empty; memory is the peak of one call, weights included. Errors compare
raw output channels with float32 (no tf32) by ||x - y|| / ||y - mean(y)||.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from bozzetto.nn import backend, bias, group_norm, residual, upsample
from bozzetto.nn.graphs import Captured
from bozzetto.nn.layout import for_inference
from bozzetto.systems.l4gm import network as l4gm_network
from bozzetto.systems.l4gm.network import L4GM
from bozzetto.systems.lgm import blocks as lgm_blocks
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import BIG, MINI

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], torch.dtype]] = {
    "LGM big, 4 x 256²": (lambda: LGM(BIG), (1, 4, 9, 256, 256), torch.float16),
    "lgm-mini, 4 x 256²": (lambda: LGM(MINI), (1, 4, 11, 256, 256), torch.bfloat16),
    "L4GM, T=1": (lambda: L4GM(BIG), (1, 1, 4, 9, 256, 256), torch.float16),
    "L4GM, T=16": (lambda: L4GM(BIG), (1, 16, 4, 9, 256, 256), torch.float16),
}
PARTS = {"position": (0, 3), "opacity": (3, 4), "scale": (4, 7), "rotation": (7, 11), "colour": (11, 14)}


@contextmanager
def plain_layers() -> Iterator[None]:
    """PyTorch's layers instead of the kernels."""
    with ExitStack() as stack:
        for module in (lgm_blocks, l4gm_network, bias, group_norm, residual, upsample):
            stack.enter_context(mock.patch.object(module, "use_kernels", lambda x: False))
        yield


def median(function: Callable[[], object], seconds: float = 0.25) -> float:
    """Milliseconds of one call."""
    function()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """(milliseconds of a first call, peak GiB, result)."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = function()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start), torch.cuda.max_memory_allocated() / 2**30, result


def errors(raw: Tensor, exact: Tensor) -> str:
    def of(a: int, b: int) -> float:
        x, y = raw[..., a:b, :, :].double(), exact[..., a:b, :, :].double()
        return float((x - y).norm() / (y - y.mean()).norm())

    return ", ".join(f"{name} {of(*span):.1e}" for name, span in PARTS.items())


def profile(function: Callable[[], object], count: int = 30) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        function()
        torch.cuda.synchronize()
    rows = [e for e in recorded.key_averages() if str(e.device_type).endswith("CUDA") and e.self_device_time_total]
    rows.sort(key=lambda e: -e.self_device_time_total)
    print(f"\n{sum(e.count for e in rows)} kernels, {sum(e.self_device_time_total for e in rows) / 1e3:.2f} ms")
    for e in rows[:count]:
        print(f"  {e.self_device_time_total / 1e3:8.3f} ms {e.count:4d}  {e.key[:100]}")
    print()


@torch.inference_mode()
def measure(name: str, show: bool, accuracy: bool) -> None:
    build, shape, dtype = CASES[name]
    torch.manual_seed(0)
    with torch.device("cuda"):
        net, inputs = build().eval().requires_grad_(False), torch.randn(shape)
    exact = None
    if accuracy:
        with plain_layers():
            exact = net(inputs)
    torch.cuda.empty_cache()
    milliseconds, _, _ = timed(lambda: for_inference(net, dtype=dtype))
    print(f"| {name} | casting, compiling or reading kernels | {milliseconds:.0f} | | {backend.failure or ''} |")
    inputs = inputs.to(dtype)
    if exact is not None:  # before anything else, so that the first row is not the one that starts the libraries
        with plain_layers():
            print(f"| {name} | plain, errors | {errors(net(inputs), exact)} | | |")
    with plain_layers():
        row(f"{name} | plain", net, inputs)
    raw = row(f"{name} | kernels", net, inputs)
    if exact is not None:
        print(f"| {name} | kernels, errors | {errors(raw, exact)} | | |")
    if show:
        profile(lambda: net(inputs))
    replayed = Captured(net)
    replayed(inputs)
    milliseconds, _, _ = timed(lambda: replayed(inputs))
    print(f"| {name} | recording the graph | {milliseconds:.0f} | | {replayed.reason or ''} |")
    again = row(f"{name} | graph", replayed, inputs)
    if not torch.equal(again, raw):
        print(f"| {name} | graph, largest difference | {float((again - raw).abs().max()):.1e} | | |")
    if isinstance(net, L4GM) and inputs.shape[1] > 1:
        replayed.reset()
        measure_clip(name, net, inputs)


def measure_clip(name: str, net: nn.Module, inputs: Tensor) -> None:
    """A clip as it is reconstructed: the video's view moves, the other three are the same pictures in all frames."""
    inputs = inputs.clone()
    inputs[:, :, 1:] = inputs[:, :1, 1:]
    raw = row(f"{name} | three views still, kernels", lambda x: net(x, 3), inputs)
    print(f"| {name} | three views still, difference | {errors(raw, net(inputs).float())} | | |")
    row(f"{name} | three views still, graph", Captured(lambda x: net(x, 3)), inputs)


def row(title: str, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    torch.cuda.empty_cache()
    first, memory, result = timed(lambda: function(inputs))
    warm = median(lambda: function(inputs))
    print(f"| {title} | {first:.0f} | {warm:.2f} | {memory:.2f} |", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CASES), help="may be repeated (all)")
    parser.add_argument("--profile", action="store_true", help="list the kernels of each network")
    parser.add_argument("--no-errors", action="store_true", help="leave out the comparison with float32")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}\n")
    print("| network | way | first call, ms | warm, ms | peak, GiB |\n|---|---|---|---|---|")
    for name in options.only or CASES:
        measure(name, options.profile, not options.no_errors)


if __name__ == "__main__":
    main()
