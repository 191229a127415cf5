"""Medians of the stages of a computation, and the kernels that take longest in it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch


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
