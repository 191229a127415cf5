"""Time and memory of TripoSR's parts: ``python benchmarks/triposr.py [--resolution 256 --resolution 512] [--only network]``.

Needs no published weights: the network has the published sizes and made-up numbers (``full_size.py``), set so that the field
holds one slightly rough ball. Medians of ``--runs`` after warm-up; on a GPU, the device is synchronised at both ends. "plain" is
the plain PyTorch form in float32, and the reference of the errors. The surface's shift is that of the places where the level is
crossed on the edges of the grid. "rough" is a field of lively random planes and a random decoder, harder than an object's: all
of its features decide about its surface. "photo to mesh" begins with a cut-out photo and ends with a coloured mesh, both in main
memory.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable

import torch
from full_size import draw
from full_size_shapes import shape_triposr
from torch import Tensor

from bozzetto.job import Job
from bozzetto.systems.triposr.config import TripoSRConfig
from bozzetto.systems.triposr.field import TriposrField
from bozzetto.systems.triposr.inference import InferenceTripoSR
from bozzetto.systems.triposr.network import TripoSR
from bozzetto.systems.triposr.options import PhotoOptions
from bozzetto.systems.triposr.pipeline import field_mesh, photos_to_fields
from bozzetto.systems.triposr.triplane import query_triplane

LEVEL = 25.0
GIB = 2**30


def full_network(device: torch.device, config: TripoSRConfig | None = None) -> TripoSR:
    """A network of the published sizes with made-up numbers, float32."""
    with torch.device("meta"):
        network = TripoSR(config or TripoSRConfig())
    state = {k: draw(k, tuple(v.shape), v.dtype, device) for k, v in network.state_dict().items()}
    shape_triposr(state)
    network = network.to_empty(device=device)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def rough_field(like: TriposrField) -> TriposrField:
    """Random planes and a random decoder of the same sizes; a twelfth of the cube is inside of the level."""
    device, generator = like.device, torch.Generator().manual_seed(0)
    _, channels, height, width = like.triplane.shape
    coarse = torch.randn(3, channels, 10, 10, generator=generator)
    planes = 0.5 * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    planes += 0.02 * torch.randn(planes.shape, generator=generator)
    decoder = copy.deepcopy(like.decoder)
    for layer in decoder.layers:
        if isinstance(layer, torch.nn.Linear):
            scale = (2.2 / layer.in_features) ** 0.5
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * scale)
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.1)
    return with_surface(TriposrField(planes.to(device), decoder, like.config))


def with_surface(field: TriposrField, spread: float = 8.0, inside: float = 1 / 12) -> TriposrField:
    """The same with the decoder's density scaled and shifted (in place): its logarithm's deviation, its share above the level."""
    raw = fast_density(field, 64).log().flatten()
    last, factor = field.decoder.layers[-1], spread / float(raw.std())
    middle = float(raw.sort().values[int((1 - inside) * len(raw))])
    last.weight[0] *= factor
    last.bias[0] = (last.bias[0] - 1 - middle) * factor + math.log(LEVEL) + 1  # the density is exp(output - 1)
    return TriposrField(field.triplane, field.decoder, field.config)


def made_up_photo(side: int = 768) -> Tensor:
    """A cut-out disc [S, S, 4] in 0..1."""
    photo = torch.rand(side, side, 4, generator=torch.Generator().manual_seed(0))
    axis = torch.linspace(-1, 1, side)
    photo[..., 3] = (axis[:, None] ** 2 + axis**2 < 0.6).float()
    return photo


def median(function: Callable[[], object], device: torch.device, runs: int, warm: int = 3) -> float:
    """Milliseconds."""
    times = []
    for run in range(warm + runs):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        if run >= warm:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def axes_of(field: TriposrField, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    radius = field.config.radius
    axis = torch.linspace(-radius, radius, resolution, device=field.device)
    return axis, axis, axis


def plain_density(field: TriposrField, resolution: int, chunk: int) -> Tensor:
    """Every sample by the plain query: gather 120 features, ten layers."""
    x, y, z = axes_of(field, resolution)
    out = torch.empty(resolution**3, device=field.device)
    for begin in range(0, len(out), chunk):
        i = torch.arange(begin, min(begin + chunk, len(out)), device=field.device)
        at = (x[i // resolution**2], y[i // resolution % resolution], z[i % resolution])
        answer = query_triplane(field.decoder, field.triplane, torch.stack(at, dim=-1), field.config)
        out[begin : begin + len(i)] = answer["density_act"][:, 0]
    return out.reshape(resolution, resolution, resolution)


def fast_density(field: TriposrField, resolution: int) -> Tensor:
    slabs, step = field.grid(axes_of(field, resolution)), max(1, (1 << 25) // resolution**2)
    return torch.cat([slabs(i, min(i + step, resolution)) for i in range(0, resolution, step)])


def surface_shift(found: Tensor, reference: Tensor) -> str:
    """By how many voxels the level's crossings on the grid's edges move."""
    shifts, lost, count = [], 0, 0
    for axis in range(3):
        n = reference.shape[axis] - 1
        a, b, c, d = (t.narrow(axis, i, n) - LEVEL for t in (reference, found) for i in (0, 1))
        crossed, still = (a > 0) != (b > 0), (c > 0) != (d > 0)
        both = crossed & still
        shifts.append((a[both] / (a - b)[both] - c[both] / (c - d)[both]).abs())
        lost, count = lost + int((crossed != still).sum()), count + int(crossed.sum())
    shift = torch.cat(shifts)
    if not len(shift):
        return f"{lost} of {count:,} crossings come or go"
    far = float(shift.kthvalue(math.ceil(0.99 * len(shift))).values)
    return (
        f"mean {float(shift.mean()):.1e}, 99 % below {far:.1e}, most {float(shift.max()):.1e} voxels; "
        f"{lost} of {count:,} crossings come or go"
    )


def network_rows(network: TripoSR, prepared: dict[str, InferenceTripoSR], device: torch.device, runs: int) -> None:
    images = torch.rand(1, 3, network.config.cond_image_size, network.config.cond_image_size, device=device)
    reference = network(images)
    print("| network, one photo | ms | error of the planes | rough surface at 256³ |\n|---|---|---|---|")
    print(f"| plain, float32 | {median(lambda: network(images), device, runs):.1f} | | |")
    renderer = network.config.renderer
    # A decoder to which all features of the planes matter.
    decoder = rough_field(TriposrField(reference[0], network.decoder, renderer)).decoder
    decoder = with_surface(TriposrField(reference[0], decoder, renderer)).decoder
    exact = fast_density(TriposrField(reference[0], decoder, renderer), 256)
    for name, fast in prepared.items():
        planes = fast(images)
        error = float((planes - reference).norm() / reference.norm())
        shift = surface_shift(fast_density(TriposrField(planes[0], decoder, renderer), 256), exact)
        print(f"| {name} | {median(lambda f=fast: f(images), device, runs):.1f} | {error:.1e} | {shift} |")
    print()


def density_rows(fields: dict[str, TriposrField], resolutions: list[int], runs: int, plain: bool) -> None:
    print(
        "| density of a grid | plain, chunks of 8192, ms | of a million | ours, ms | error of the logarithm, surface |"
    )
    print("|---|---|---|---|---|")
    for (name, field), n in itertools.product(fields.items(), resolutions):
        if n > 512 or (name == "rough" and n > 256):
            continue
        device, cells, told = field.device, ["", ""], ""
        if plain and n <= 256 and name == "ball":
            cells[0] = f"{median(lambda f=field, n=n: plain_density(f, n, 8192), device, 1, 0):.0f}"
        if plain:
            cells[1] = f"{median(lambda f=field, n=n: plain_density(f, n, 1 << 20), device, 1, 1):.0f}"
            exact, found = plain_density(field, n, 1 << 20), fast_density(field, n)
            told = f"{float((found.log() - exact.log()).abs().max()):.1e}; {surface_shift(found, exact)}"
            del exact, found
        took = median(lambda f=field, n=n: fast_density(f, n), device, runs)
        print(f"| {name}, {n}³ | {cells[0]} | {cells[1]} | {took:.1f} | {told} |", flush=True)
    print()


def mesh_rows(network: TripoSR | InferenceTripoSR, resolutions: list[int], device: torch.device, runs: int) -> None:
    photo = made_up_photo()
    print(
        "| photo to mesh | ms | peak device memory, GiB | beyond the weights | vertices | faces |\n|---|---|---|---|---|---|"
    )
    for n in resolutions:
        options = PhotoOptions(resolution=n, texture="vertex", threshold=LEVEL)
        made = []

        def run(options: PhotoOptions = options, made: list = made) -> None:
            field = photos_to_fields(network, [photo])[0]
            made[:] = [field_mesh(field, options, Job(device))]

        base = 0
        if device.type == "cuda":
            base = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        took = median(run, device, runs if n <= 512 else min(runs, 3), 2)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        mesh = made[0]
        sizes = f"{len(mesh.vertices):,} | {len(mesh.faces):,}"
        print(f"| {n}³ | {took:.1f} | {peak / GIB:.2f} | {(peak - base) / GIB:.2f} | {sizes} |", flush=True)
    print()


@torch.no_grad()
def main(arguments: list[str] | None = None, config: TripoSRConfig | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resolution", type=int, action="append", help="may be repeated (256, 512, 1024)")
    parser.add_argument("--only", choices=("network", "density", "mesh"), action="append", help="may be repeated (all)")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain forms of the density out")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    parts = options.only or ["network", "density", "mesh"]
    resolutions = options.resolution or [256, 512, 1024]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"torch {torch.__version__}, {name}\n")
    network = full_network(device, config)
    fast: TripoSR | InferenceTripoSR = network
    if device.type == "cuda":
        fast = InferenceTripoSR(network)
    if "network" in parts:
        prepared = {"float16 products": fast, "bfloat16 products": InferenceTripoSR(network, torch.bfloat16)}
        network_rows(network, prepared if device.type == "cuda" else {}, device, options.runs)
        del prepared
    del network
    if "density" in parts:
        field = photos_to_fields(fast, [made_up_photo()])[0]
        density_rows({"ball": field, "rough": rough_field(field)}, resolutions, options.runs, not options.no_plain)
    if "mesh" in parts:
        mesh_rows(fast, resolutions, device, options.runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
