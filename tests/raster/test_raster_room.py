"""Memory for lists whose size the host does not know: growing scenes, long lists, CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from random_scenes import NAMES, PARAMETERS, random_inputs

from bozzetto.camera import Cameras
from bozzetto.errors import CapacityError
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize

pytest.importorskip("triton", reason="Triton exists for Linux only")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
pytestmark = [pytest.mark.gpu] if CUDA else []
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
slow_without_cuda = pytest.mark.gpu if CUDA else pytest.mark.slow
N, SIZE = (3000, (90, 130)) if CUDA else (5, (20, 40))


@pytest.fixture
def room(monkeypatch):
    """The module that remembers, with nothing remembered."""
    from bozzetto.raster import triton_room

    monkeypatch.setattr(triton_room, "_needed", type(triton_room._needed)())
    return triton_room


def draw(scale: float, opaque: bool = False, scenes: int = 1, views: int = 2, k: int = 4) -> list[torch.Tensor]:
    """Pictures and gradients of a random scene whose Gaussians have this size."""
    from bozzetto.raster.triton import rasterize_triton

    inputs = {k: v.float().to(DEVICE) for k, v in random_inputs(3, scenes, views, N, SIZE, k, scale).items()}
    if opaque:
        inputs["opacities"].fill_(0.9)
    for name in PARAMETERS:
        inputs[name].requires_grad_()
    pictures = rasterize_triton(*(inputs[k] for k in NAMES), *SIZE, 0.01, 1e10)
    gradients = torch.autograd.grad(sum(p.square().sum() for p in pictures), [inputs[k] for k in PARAMETERS])
    return [p.detach() for p in pictures], gradients


def assert_same(got, expected) -> None:
    """Equal pictures; gradients are sums in any order."""
    assert all(torch.equal(a, b) for a, b in zip(got[0], expected[0]))
    for a, b in zip(got[1], expected[1]):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_scene_that_grows(room):
    expected = draw(0.3)
    room._needed.clear()
    draw(0.004)
    small = room.expected(*kind_and_rows(room))
    assert_same(draw(0.3), expected)
    large = room.expected(*kind_and_rows(room))
    assert large.pairs > small.pairs and large.entries > small.entries


def kind_and_rows(room):
    (kind,) = room._needed
    return kind, 1000000


@slow_without_cuda
def test_too_little_room_is_noticed_whatever_is_short(room, monkeypatch):
    expected = draw(0.1)
    for first in ((1e-6, 1e-6), (1e-6, 400.0), (400.0, 1e-6)):
        room._needed.clear()
        monkeypatch.setattr(room, "FIRST", first)
        monkeypatch.setattr(room, "_rounded", lambda count: -(-max(int(count), 1) // 32) * 32)
        assert_same(draw(0.1), expected)


@slow_without_cuda
def test_lists_sorted_by_a_sample(room, monkeypatch):
    """As where many Gaussians stand at nearly one depth."""
    from bozzetto.raster import triton_lists

    expected = draw(0.1, opaque=True)
    monkeypatch.setattr(triton_lists, "FULLEST", -(1 << 20))
    triton_lists._launcher.cache_clear()
    try:
        assert_same(draw(0.1, opaque=True), expected)
        monkeypatch.setattr(triton_lists, "PART", 64 if CUDA else 2)
        monkeypatch.setattr(triton_lists, "STEPS", 6 if CUDA else 1)
        triton_lists._launcher.cache_clear()
        assert_same(draw(0.1, opaque=True), expected)
    finally:
        triton_lists._launcher.cache_clear()


@slow_without_cuda
def test_indices_of_many_gaussians_need_32_bits(room, monkeypatch):
    from bozzetto.raster.triton_layout import Layout

    expected = draw(0.1)
    assert Layout(1, 1, 65536, *range(10)).index == torch.int16 and Layout(1, 1, 65537, *range(10)).index == torch.int32
    monkeypatch.setattr(Layout, "index", torch.int32)
    clear_plans()
    try:
        assert_same(draw(0.1), expected)
    finally:
        clear_plans()


@pytest.mark.parametrize(("scenes", "views"), [(2, 2), (3, 1)])
def test_records_without_colours(room, monkeypatch, scenes, views):
    from bozzetto.raster.triton_layout import Layout

    results = []
    for lean in (False, True):
        monkeypatch.setattr(Layout, "lean", lean)
        clear_plans()
        results.append(draw(0.1, scenes=scenes, views=views, k=1))
    clear_plans()
    for a, b in zip(results[0][0], results[1][0]):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_the_list_kernel_reports_what_it_needed(room, monkeypatch):
    """The host reads the numbers from its own memory, written by the tile that ends last."""
    from bozzetto.raster import triton

    seen = []

    def listed(kept, work, needed, layout, size, report=None):
        if report is None:  # on the CPU nobody waits for it
            report = torch.full((2,), -1, dtype=torch.int64)
        list_cells(kept, work, needed, layout, size, report)
        if CUDA:
            torch.cuda.synchronize()
        seen.append((report.tolist(), needed.tolist(), layout.cameras * layout.tiles))

    list_cells = triton.list_cells
    monkeypatch.setattr(triton, "list_cells", listed)
    draw(0.1, k=1)
    for report, (pairs, entries, sorted_pairs, tiles), expected_tiles in seen:
        assert report == [pairs, entries] and 0 < sorted_pairs <= pairs and tiles == expected_tiles
    assert seen and min(seen[-1][0]) > 0


def clear_plans() -> None:
    from bozzetto.raster import triton_call, triton_layout

    triton_call.plans.cache_clear()
    triton_layout.layout_of.cache_clear()


def test_a_second_backward_pass_draws_again(room):
    from bozzetto.raster.triton import rasterize_triton

    inputs = {k: v.float().to(DEVICE) for k, v in random_inputs(3, 1, 2, N, SIZE, 1, 0.1).items()}
    leaves = [inputs[k].requires_grad_() for k in PARAMETERS]
    loss = sum(p.square().sum() for p in rasterize_triton(*(inputs[k] for k in NAMES), *SIZE, 0.01, 1e10))
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for a, b in zip(torch.autograd.grad(loss, leaves), first):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@slow_without_cuda
def test_pictures_of_more_tiles_than_counters(room, monkeypatch):
    """Tiles are counted as many at a time as fit; a very wide picture has more."""
    from bozzetto.raster.triton import rasterize_triton

    size = (2 * 32, 2500 * 32) if CUDA else (1, 32 * 4097)
    inputs = {k: v.float().to(DEVICE) for k, v in random_inputs(3, 1, 1, 3, size, 1, 0.02).items()}
    if not CUDA:  # interpreted, the cells of a whole such picture take too long: look at the pairs only
        from bozzetto.raster import triton_call, triton_project
        from bozzetto.raster.triton_room import Room

        # fx and fy in pixels differ by thousands: the Gaussians are spread over the whole width.
        layout, room = triton_project.Layout(1, 1, 3, 1, *size, 0.01, 1e10, False, 16, 16, 4, 4), Room(4096 * 16, 1024)
        arguments = [inputs[k] for k in ("means", "quats", "scales", "opacities", "sh", "view", "intrinsics")]
        kept, work = triton_call.memory(layout, room, False, torch.device("cpu"))
        needed = torch.zeros(4, dtype=torch.int64)
        triton_project.project(*arguments, layout, room, kept.records, kept.depths, work.pairs, work.table, needed)
        table = work.table.tensor()
        groups = table.reshape(layout.tiles)
        counts, starts = groups & 0xFFFF, groups >> 16
        assert int(needed[0]) == int(counts.sum()) > 100
        assert torch.equal(starts, counts.cumsum(0) - counts)
        return
    narrow = rasterize_triton(*(inputs[k] for k in NAMES), *size, 0.01, 1e10)
    assert bool((narrow[1][0, 0, :, -40000:] > 0).any())


def test_what_is_remembered_is_bounded_and_fades(room, monkeypatch):
    monkeypatch.setattr(room, "KINDS", 3)
    for i in range(5):
        room.learn(i, 10, (10, 20))
    assert list(room._needed) == [2, 3, 4]
    room.learn(4, 10, (1000, 20))
    high = room.expected(4, 10_000).pairs
    for _ in range(300):
        room.learn(4, 10, (10, 20))
    assert room.expected(4, 10_000).pairs < high / 50
    with pytest.raises(CapacityError, match="fewer views"):
        room.learn(4, 10, (1 << 31, 20))


def scene(scale: float) -> Gaussians:
    inputs = {k: v.float().to(DEVICE) for k, v in random_inputs(3, 1, 2, N, SIZE, 4, scale).items()}
    return Gaussians(*(inputs[k][0] for k in ("means", "scales", "quats", "opacities", "sh")))


def test_check_does_nothing_outside_graphs(room):
    picture = rasterize(scene(0.05), Cameras.turntable(2), SIZE, backend="triton")
    assert picture.recorded is None
    picture.check()


@needs_cuda
def test_the_host_waits_for_nothing_but_the_size_of_the_lists(room):
    gaussians, cameras = scene(0.05), Cameras.turntable(2).to(device="cuda")
    rasterize(gaussians, cameras, SIZE, (1, 1, 1))
    torch.cuda.set_sync_debug_mode("error")
    try:
        rasterize(gaussians, cameras, SIZE, (1, 1, 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@slow_without_cuda
def test_what_does_not_fit_a_recording_is_nan(room, monkeypatch):
    from bozzetto.raster import triton

    gaussians, cameras = scene(0.05), Cameras.turntable(2).to(device=DEVICE)
    leaves = [t.requires_grad_() for t in gaussians.tensors()]
    expected = rasterize(gaussians, cameras, SIZE, backend="triton")
    monkeypatch.setattr(triton, "_recording", lambda tensor: True)
    picture = rasterize(gaussians, cameras, SIZE, backend="triton")
    assert torch.equal(picture.rgb, expected.rgb) and torch.equal(picture.alpha, expected.alpha)
    picture.check()
    entries = int(picture.recorded.needed[1])  # half as many: some tiles' lists fit, others do not
    for short in (room.Room(1, 1 << 16), room.Room(1 << 16, 32), room.Room(1 << 16, entries // 64 * 32)):
        monkeypatch.setattr(triton, "expected", lambda *a, short=short: short)
        picture = rasterize(gaussians, cameras, SIZE, backend="triton")
        gradients = torch.autograd.grad(picture.rgb.square().sum() + picture.alpha.sum(), leaves)
        assert all(bool(t.isnan().all()) for t in (picture.rgb, picture.alpha, picture.depth, *gradients))
        with pytest.raises(CapacityError, match="record it again"):
            picture.check()


def test_the_room_of_a_recording_is_the_callers_choice(room, monkeypatch):
    from bozzetto.raster import triton

    gaussians, cameras = scene(0.05), Cameras.turntable(2).to(device=DEVICE)
    rasterize(gaussians, cameras, SIZE, backend="triton")
    monkeypatch.setattr(triton, "_recording", lambda tensor: True)
    monkeypatch.setattr(room, "_rounded", int)
    small, large = (rasterize(gaussians, cameras, SIZE, backend="triton", room=x).recorded.room for x in (1.5, 6.0))
    assert abs(large.pairs - 4 * small.pairs) <= 4 and abs(large.entries - 4 * small.entries) <= 4
    with pytest.raises(ValueError, match="room"):
        rasterize(gaussians, cameras, SIZE, room=0.9)


@needs_cuda
def test_calls_in_and_out_of_inference_mode(room, monkeypatch):
    monkeypatch.setattr(room, "_readers", {})
    monkeypatch.setattr(room, "_counters", {})
    monkeypatch.setattr(room, "COUNTERS", 3)
    gaussians, cameras = scene(0.05), Cameras.turntable(2).to(device="cuda")
    with torch.inference_mode():
        expected = [rasterize(gaussians, cameras, SIZE).rgb.clone() for _ in range(2)]
    gaussians.means.requires_grad_()
    for _ in range(5):
        picture = rasterize(gaussians, cameras, SIZE).rgb
        assert torch.equal(picture, expected[0]) and torch.equal(picture, expected[1])
    picture.sum().backward()
    assert bool((gaussians.means.grad != 0).any())


@needs_cuda
def test_a_recorded_call_replays_with_other_gaussians(room):
    gaussians, cameras = scene(0.05), Cameras.turntable(2).to(device="cuda")
    graph = torch.cuda.CUDAGraph()
    rasterize(gaussians, cameras, SIZE, (1, 1, 1))
    with torch.cuda.graph(graph):
        picture = rasterize(gaussians, cameras, SIZE, (1, 1, 1))
    for shift in (0.0, 0.1):
        gaussians.means += shift
        graph.replay()
        picture.check()
        expected = rasterize(gaussians, cameras, SIZE, (1, 1, 1))
        assert torch.equal(picture.rgb, expected.rgb) and torch.equal(picture.depth, expected.depth)
    gaussians.scales *= 30
    graph.replay()
    assert bool(picture.rgb.isnan().all() & picture.alpha.isnan().all() & picture.depth.isnan().all())
    with pytest.raises(CapacityError, match="record it again"):
        picture.check()


@needs_cuda
def test_a_recorded_forward_and_backward_pass_replays(room):
    gaussians, cameras = scene(0.05), Cameras.turntable(2).to(device="cuda")
    leaves = [t.requires_grad_() for t in gaussians.tensors()]

    def step():
        picture = rasterize(gaussians, cameras, SIZE)
        loss = picture.rgb.square().sum() + picture.alpha.sum()
        return picture, torch.autograd.grad(loss, leaves)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        picture, gradients = step()
    with torch.no_grad():
        gaussians.means += 0.05
    graph.replay()
    picture.check()
    again, expected = step()
    assert torch.equal(picture.rgb, again.rgb)
    for a, b in zip(gradients, expected):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@needs_cuda
def test_the_first_call_cannot_be_recorded(room):
    gaussians, cameras = scene(0.05), Cameras.turntable(2).to(device="cuda")
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(CapacityError, match="once"), torch.cuda.graph(graph):
        rasterize(gaussians, cameras, SIZE)
