"""Times of the Triton rasterizer on a CUDA device: ``python benchmarks/raster.py [--row 1x1x512] [--growth] [--kernels]``.

Gaussians on a bumpy ball of radius 0.5 (standard deviations 0.006 to 0.01) from an orbit of radius 1.5 with a field of view
of 49.1 degrees: scenes x views x pictures' size, 65,536 Gaussians in each scene. Pictures are RGB and alpha (bozzetto draws
depth besides), gradients go to every parameter of the Gaussians. Prints markdown tables. Times are milliseconds between
CUDA events around the call, medians with the range of the middle half; memory is the peak above what the inputs take.

With gsplat installed its times stand beside, in the same run: the same Gaussians and cameras, its view matrices and
intrinsics made beforehand, ``packed=False`` (faster here), colours without SH where the degree is 0. With ``--packed`` its other
way, too, which is its default and takes no backgrounds here, so it draws on black.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bozzetto.camera import Cameras
from bozzetto.gaussians import SH_C0, Gaussians
from bozzetto.raster import rasterize

ROWS = [(8, 8, 256), (4, 8, 512), (1, 8, 512), (1, 1, 512), (16, 8, 256)]  # scenes, views, size
SIZES = (128, 256, 512, 1024)
GROWTH = [(n, size, 0) for n in (16384, 65536, 262144) for size in SIZES] + [
    (65536, size, 3) for size in SIZES
]  # SH degree last


@dataclass
class Case:
    """One scene set, and how both renderers get it.

    Attributes:
        leaves: means, scales, quats, opacities and SH coefficients; gradients are asked for these.
        render: draws them: (rgb, alpha).
    """

    leaves: tuple[Tensor, ...]
    render: Callable[..., tuple[Tensor, Tensor]]


def ball(scenes: int, n: int = 65536, degree: int = 0) -> Gaussians:
    """[scenes, n] Gaussians on the surface, opacities 0.3..1, random colours."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(scenes, n, 3, generator=g), dim=-1)
    radius = 0.45 + 0.05 * torch.sin(8 * direction).prod(-1, keepdim=True)
    gaussians = Gaussians.from_rgb(
        radius * direction,
        0.006 + 0.004 * torch.rand(scenes, n, 3, generator=g),
        torch.randn(scenes, n, 4, generator=g),
        0.3 + 0.7 * torch.rand(scenes, n, generator=g),
        torch.rand(scenes, n, 3, generator=g),
    )
    rest = 0.05 * torch.randn(scenes, n, (degree + 1) ** 2 - 1, 3, generator=g)
    gaussians.sh = torch.cat([gaussians.sh, rest], dim=-2)
    return gaussians


def orbit(scenes: int, views: int) -> Cameras:
    """[scenes, views] cameras, the same for all scenes."""
    cameras = Cameras.turntable(views, elevation=15).to(device="cuda")
    return Cameras(cameras.camera_to_world.repeat(scenes, 1, 1, 1), cameras.intrinsics.repeat(scenes, 1, 1))


def bozzetto_case(gaussians: Gaussians, cameras: Cameras, size: int) -> Case:
    white = torch.ones(*cameras.batch_shape, 3, device="cuda")

    def render(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        picture = rasterize(Gaussians(*leaves), cameras, size, white, backend="triton")
        return picture.rgb, picture.alpha

    return Case(gaussians.tensors(), render)


def gsplat_case(gaussians: Gaussians, cameras: Cameras, size: int, packed: bool = False) -> Case:
    from gsplat import rasterization

    k = torch.zeros(*cameras.batch_shape, 3, 3, device="cuda")
    k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2] = cameras.pixel_intrinsics(size).unbind(-1)
    k[..., 2, 2] = 1
    view = cameras.view_matrices()
    white = torch.ones(*cameras.batch_shape, 3, device="cuda")
    means, scales, quats, opacities, sh = gaussians.tensors()
    degree = {1: None, 4: 1, 9: 2, 16: 3}[sh.shape[-2]]
    colours = sh if degree else 0.5 + SH_C0 * sh[..., 0, :]

    def render(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        means, scales, quats, opacities, colours = leaves
        rgb, alpha, _ = rasterization(
            means, quats, scales, opacities, colours, view, k, size, size,
            sh_degree=degree, packed=packed, backgrounds=None if packed else white,
        )  # fmt: skip
        return rgb, alpha[..., 0]

    return Case((means, scales, quats, opacities, colours), render)


def renderers(packed: bool = False) -> dict[str, Callable[[Gaussians, Cameras, int], Case]]:
    """bozzetto, and gsplat where it is installed."""
    found: dict[str, Callable[[Gaussians, Cameras, int], Case]] = {"bozzetto": bozzetto_case}
    try:
        import gsplat

        found[f"gsplat {gsplat.__version__}"] = gsplat_case
        if packed:
            found[f"gsplat {gsplat.__version__}, packed"] = partial(gsplat_case, packed=True)
    except ImportError:
        print("gsplat is not installed: its columns are left out\n")
    return found


def times(function: Callable[[], object], runs: int, warm_up: int = 4) -> list[float]:
    """Sorted milliseconds of ``function`` between CUDA events."""
    for _ in range(warm_up):
        function()
    out = []
    for _ in range(runs):
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        end.synchronize()
        out.append(start.elapsed_time(end))
    return sorted(out)


def milliseconds(function: Callable[[], object], runs: int = 15) -> float:
    """Median time of ``function``."""
    return statistics.median(times(function, runs))


def shown(sorted_times: list[float]) -> str:
    """Median and the range of the middle half."""
    quarter = len(sorted_times) // 4
    middle = statistics.median(sorted_times)
    return f"{middle:.2f} ({sorted_times[quarter]:.2f}–{sorted_times[-1 - quarter]:.2f})"


def functions(case: Case) -> tuple[Callable[[], object], Callable[[], object]]:
    """One call forward without gradients, and one forward and backward."""
    leaves = tuple(t.clone().requires_grad_() for t in case.leaves)
    with torch.no_grad():
        grads = tuple(torch.randn_like(t) for t in case.render(*case.leaves))

    def forward() -> None:
        with torch.no_grad():
            case.render(*case.leaves)

    def both() -> None:
        torch.autograd.grad(case.render(*leaves), leaves, grads)

    return forward, both


def measure(case: Case, runs: int) -> tuple[list[float], list[float], float, float]:
    """Times forward, times forward and backward, peaks of memory of both in MiB."""
    forward, both = functions(case)
    out, peaks = [], []
    for function in (forward, both):
        function()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out.append(times(function, runs))
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**20)
    return out[0], out[1], peaks[0], peaks[1]


def in_this_thread(function: Callable[[], object]) -> Callable[[], None]:
    """``function`` with its backward pass where it is called; PyTorch has a thread for every device otherwise."""

    def call() -> None:
        with torch.autograd.set_multithreading_enabled(False):
            function()

    return call


def host(case: Case) -> list[float]:
    """Microseconds of the host for a call that leaves the device nothing to do: forward; both; both in one thread."""
    micros = []
    forward, both = functions(case)
    for function in (forward, both, in_this_thread(both)):
        for _ in range(10):
            function()
        spent = []
        for _ in range(50):
            torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            spent.append(1e6 * (time.perf_counter() - start))
        micros.append(statistics.median(spent))
    return micros


def launches(case: Case) -> list[int]:
    """How many operations of the device a call enqueues: forward, both. Later calls are slower on the host."""
    from torch.profiler import ProfilerActivity, profile

    counts = []
    for function in functions(case):
        function()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            function()
            torch.cuda.synchronize()
        counts.append(sum(e.count for e in record.key_averages() if e.device_type.name == "CUDA"))
    return counts


def table(rows: list[tuple[int, int, int]], runs: int, packed: bool = False) -> None:
    """Times and memory of every renderer for every row."""
    found = renderers(packed)
    print("| scenes × views × size | renderer | forward ms | forward + backward ms | peak MiB forward | both |")
    print("|---|---|---|---|---|---|")
    for scenes, views, size in rows:
        gaussians, cameras = ball(scenes).to("cuda"), orbit(scenes, views)
        for name, make in found.items():
            forward, both, peak, peak_both = measure(make(gaussians, cameras, size), runs)
            row = f"{scenes}×{views}×{size}² | {name} | {shown(forward)} | {shown(both)}"
            print(f"| {row} | {peak:.1f} | {peak_both:.1f} |", flush=True)
    print(
        "\n| one call on 64 Gaussians at 64² | host µs, forward | both | both in one thread | device operations, forward | both |"
    )
    print("|---|---|---|---|---|---|")
    cases = {name: make(ball(1, 64).to("cuda"), orbit(1, 1), 64) for name, make in found.items()}
    micros = {name: host(case) for name, case in cases.items()}
    for name, case in cases.items():
        row = *(f"{x:.0f}" for x in micros[name]), *map(str, launches(case))
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def growth(runs: int, packed: bool = False) -> None:
    """Times of 1 scene × 8 views by numbers of Gaussians, size of the pictures and degree of SH."""
    found = renderers(packed)
    print("| Gaussians | size | SH degree | renderer | forward ms | forward + backward ms | peak MiB, both |")
    print("|---|---|---|---|---|---|---|")
    for n, size, degree in GROWTH:
        gaussians, cameras = ball(1, n, degree).to("cuda"), orbit(1, 8)
        for name, make in found.items():
            forward, both, _, peak = measure(make(gaussians, cameras, size), runs)
            row = f"{n:,} | {size}² | {degree} | {name} | {shown(forward)} | {shown(both)} | {peak:.1f}"
            print(f"| {row} |", flush=True)


class Stages:
    """The stages of one forward and backward pass, each callable by itself on the results of those before it."""

    def __init__(self, gaussians: Gaussians, cameras: Cameras, size: int) -> None:
        from bozzetto.raster import triton_blend, triton_blend_gradient, triton_lists, triton_project_gradient
        from bozzetto.raster.triton_call import memory
        from bozzetto.raster.triton_layout import Layout
        from bozzetto.raster.triton_project import project
        from bozzetto.raster.triton_room import Room

        scenes, views, k = gaussians.batch_shape[0], cameras.batch_shape[-1], gaussians.sh.shape[-2]
        view = cameras.view_matrices().contiguous()
        intrinsics = cameras.pixel_intrinsics(size).contiguous()
        g = gaussians
        layout = Layout(scenes, views, len(g), k, size, size, 0.01, 1e10, False, 16 * views, 16, 4 * views, 4)
        inputs = (g.means, g.quats, g.scales, g.opacities, g.sh, view, intrinsics, layout)
        needed = torch.zeros(4, dtype=torch.int64, device="cuda")

        room = Room(512, 512)
        for _ in range(3):  # the second time there is room for the pairs, the third time for the entries
            kept, work = memory(layout, room, True, needed.device)
            needed.zero_()
            project(*inputs, room, kept.records, kept.depths, work.pairs, work.table, needed)
            triton_lists.list_cells(kept, work, needed, layout, room)
            self.needed = needed.tolist()
            room = Room(self.needed[0], max(self.needed[1], 512))

        def timed_project() -> None:
            needed.zero_()
            project(*inputs, room, kept.records, kept.depths, work.pairs, work.table, needed)

        def timed_lists() -> None:
            needed[1:] = 0
            triton_lists.list_cells(kept, work, needed, layout, room)

        self.project, self.lists = timed_project, timed_lists
        background = torch.ones(scenes, views, 3, device="cuda")
        self.pairs = int(kept.counts.tensor().sum())
        # The table lies where compositing writes, so the lists are made anew before these.
        self.blend = lambda: triton_blend.blend(kept, g.sh, background, layout, (scenes, views, size, size))
        rgb, alpha, _ = self.blend()
        self.drawn = int(kept.numbers.tensor().sum())
        grads = torch.randn_like(rgb), torch.randn_like(alpha), None
        self.blend_gradient = lambda: triton_blend_gradient.blend_gradient(
            kept, g.sh, background, alpha, *grads, layout
        )
        moments = self.blend_gradient()
        self.project_gradient = lambda: triton_project_gradient.project_gradient(
            g.means, g.quats, g.scales, g.opacities, g.sh, view, intrinsics, kept.records, moments, layout
        )


def stages(rows: list[tuple[int, int, int]]) -> None:
    """Times of the stages."""
    names = ("project", "lists", "blend", "blend_gradient", "project_gradient")
    columns = ("scenes × views × size", "tile pairs", "cell entries", "drawn in parts of cells", *names)
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for scenes, views, size in rows:
        parts = Stages(ball(scenes).to("cuda"), orbit(scenes, views), size)
        counts = " | ".join(f"{x / 1e6:.2f} M" for x in (parts.needed[0], parts.pairs, parts.drawn))
        spent = " | ".join(f"{milliseconds(getattr(parts, name)):.3f}" for name in names)
        print(f"| {scenes}×{views}×{size}² | {counts} | {spent} |", flush=True)


def kernels(rows: list[tuple[int, int, int]]) -> None:
    """What the device spends its time on."""
    from torch.profiler import ProfilerActivity, profile

    for scenes, views, size in rows:
        _, both = functions(bozzetto_case(ball(scenes).to("cuda"), orbit(scenes, views), size))
        for _ in range(3):
            both()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            for _ in range(5):
                both()
            torch.cuda.synchronize()
        spent = [(e.device_time_total / 5, e.key) for e in record.key_averages() if e.device_type.name == "CUDA"]
        print(f"\n{scenes}×{views}×{size}²: {sum(t for t, _ in spent):.0f} µs")
        for t, name in sorted(spent, reverse=True)[:12]:
            print(f"{t:9.1f} {name[:80]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", action="append", help="one row, as 1x8x512 (scenes x views x size); may be repeated")
    parser.add_argument("--growth", action="store_true", help="also numbers of Gaussians, sizes, SH degrees")
    parser.add_argument("--kernels", action="store_true", help="also times of the stages and of single kernels")
    parser.add_argument("--packed", action="store_true", help="gsplat also with packed=True")
    parser.add_argument("--runs", type=int, default=21, help="calls per time")
    arguments = parser.parse_args()
    rows = [tuple(int(x) for x in row.split("x")) for row in arguments.row] if arguments.row else ROWS
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    table(rows, arguments.runs, arguments.packed)
    if arguments.growth:
        print()
        growth(arguments.runs, arguments.packed)
    if arguments.kernels:
        print()
        stages(rows)
        kernels(rows)


if __name__ == "__main__":
    main()
