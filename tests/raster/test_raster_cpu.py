"""The CPU rasterizer against stored pictures and gradients, against the reference, and on degenerate input."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from degenerate import CASES, NAMES, check_case, random_scene, run, without_skipped
from scenes import LOCAL, LOCAL_FOLDER, SCENES, check_scene

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster.api import rasterize
from bozzetto.raster.cpu import rasterize_cpu
from bozzetto.raster.reference import rasterize_reference


@pytest.mark.parametrize("name", LOCAL)
def test_local_scene(name):
    check_scene(rasterize_cpu, LOCAL_FOLDER / f"{name}.npz", picture_limit=2e-6, gradient_limit=3e-6)


@pytest.mark.parametrize("name", SCENES)
def test_shared_scene(shared, name):
    path = shared / "parity" / "rasterizer" / f"{name}.npz"
    check_scene(rasterize_cpu, path, picture_limit=2e-6, gradient_limit=3e-6)


@pytest.mark.parametrize("name", CASES)
def test_degenerate(name):
    check_case(rasterize_cpu, name)


@pytest.mark.parametrize("name", ["NaN mean", "NaN opacity", "infinite scale", "NaN colour"])
def test_skipped_gaussians_change_nothing(name):
    scene, pictures, _ = check_case(rasterize_cpu, name)
    clean, _ = run(rasterize_cpu, without_skipped(scene))
    for part in pictures:
        assert torch.equal(pictures[part], clean[part])


def compare_with_reference(scene: dict, picture_limit: float = 1e-5, gradient_limit: float = 2e-5) -> None:
    """Both back ends on one scene; a few pixels may differ where rounding flips the 1/255 cut or the stop."""
    double = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    expected, expected_gradients = run(rasterize_reference, double)
    got, gradients = run(rasterize_cpu, scene)
    for part in got:
        error = (got[part] - expected[part]).abs()
        assert float((error > picture_limit).double().mean()) < 2e-4, part
        assert float(error.max()) < 0.02, part
    for part in gradients:
        error = (gradients[part] - expected_gradients[part]).abs().flatten()
        scale = expected_gradients[part].abs().max()
        assert float((error > gradient_limit * scale).double().mean()) < 0.01, part
        assert float(error.max() / scale) < 0.02, part


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (33, 1), (16, 16), (17, 31), (48, 80)], ids=lambda n: str(n)
)
def test_sizes(height, width):
    compare_with_reference(random_scene(height=height, width=width, sh_count=9))


@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.3, 3.0])
def test_scales(scale):
    compare_with_reference(random_scene(count=120, height=40, width=56, sh_count=1, scale=scale))


@pytest.mark.parametrize("length", [0.1, 1.0, 5.0])
def test_needles_reach_as_far_as_they_show(length):
    """Elongated splats at every angle: the tile lists must not drop a visible pixel."""
    scene = random_scene(count=60, height=96, width=96, sh_count=1)
    scene["scales"][..., 0] = length
    scene["scales"][..., 1:] = 1e-3
    scene["opacities"][:] = 0.95  # 0.99 twice would leave exactly the transmittance of the stop
    compare_with_reference(scene, picture_limit=5e-5, gradient_limit=2e-3)


def test_faint_splats_below_the_cut_are_not_drawn():
    scene = random_scene()
    scene["opacities"][:] = 0.0039
    pictures, gradients = run(rasterize_cpu, scene)
    assert float(pictures["alpha"].max()) == 0.0
    assert float(gradients["opacities"].abs().max()) == 0.0
    scene["opacities"][:] = 0.0041
    scene["scales"][:] = 0.5
    assert float(run(rasterize_cpu, scene)[0]["alpha"].max()) > 0.0


def test_scenes_and_views_in_one_call():
    scene = random_scene(scenes=2, views=11)
    pictures, gradients = run(rasterize_cpu, scene)
    total = {name: torch.zeros_like(gradients[name]) for name in gradients}
    generator = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(p.shape, generator=generator) for name, p in pictures.items()}
    for s in range(2):
        for v in range(11):
            one = {k: x[s : s + 1] if isinstance(x, torch.Tensor) else x for k, x in scene.items()}
            one |= {k: scene[k][s : s + 1, v : v + 1].contiguous() for k in ("view", "intrinsics", "background")}
            inputs = {k: one[k].clone().requires_grad_() for k in NAMES}
            out = rasterize_cpu(*inputs.values(), one["height"], one["width"], 0.01, 1e10)
            for name, picture in zip(pictures, out):
                assert torch.equal(picture[0, 0], pictures[name][s, v])
            sum((p * weights[n][s, v]).sum() for n, p in zip(pictures, out)).backward()
            for name in total:
                if name == "background":
                    total[name][s, v] = inputs[name].grad[0, 0]
                else:
                    total[name][s] += inputs[name].grad[0]
    for name in total:
        torch.testing.assert_close(gradients[name], total[name], rtol=1e-4, atol=1e-5 * float(total[name].abs().max()))


def test_the_number_of_threads_changes_nothing():
    scene = random_scene(count=20000, height=70, width=90, views=2, sh_count=1, scale=0.01)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(rasterize_cpu, scene))
    finally:
        torch.set_num_threads(before)
    for pictures, gradients in results[1:]:
        for name in pictures:
            assert torch.equal(pictures[name], results[0][0][name])
        for name in gradients:
            assert torch.equal(gradients[name], results[0][1][name])


def test_gradients_only_where_asked():
    scene = random_scene()
    inputs = {name: scene[name] for name in NAMES}
    inputs["sh"] = inputs["sh"].clone().requires_grad_()
    rgb, _, _ = rasterize_cpu(*inputs.values(), 24, 37, 0.01, 1e10)
    assert rgb.requires_grad
    rgb.sum().backward()
    assert float(inputs["sh"].grad.abs().sum()) > 0
    with torch.no_grad():
        assert not rasterize_cpu(*inputs.values(), 24, 37, 0.01, 1e10)[0].requires_grad


def test_public_call_with_batches():
    scene = random_scene(scenes=2)
    gaussians = Gaussians(*(scene[k] for k in ("means", "scales", "quats", "opacities", "sh")))
    cameras = Cameras.orbit([0.0, 90.0, 200.0])
    both = rasterize(gaussians, cameras, (20, 30), backend="cpu")
    assert both.rgb.shape == (2, 3, 20, 30, 3)
    single = rasterize(gaussians[1], cameras[2][None], (20, 30), torch.zeros(3), backend="reference")
    torch.testing.assert_close(both.rgb[1, 2], single.rgb[0], atol=1e-5, rtol=0)
    empty = rasterize(Gaussians.empty(3), cameras, 8, torch.tensor([0.1, 0.2, 0.3]), backend="cpu")
    torch.testing.assert_close(empty.rgb, torch.tensor([0.1, 0.2, 0.3]).expand(3, 8, 8, 3))


def test_wrong_type_is_refused():
    scene = random_scene()
    inputs = [scene[name].double() for name in NAMES]
    with pytest.raises(ValueError, match="float32"):
        rasterize_cpu(*inputs, 8, 8, 0.01, 1e10)


def test_works_without_a_cache_folder(tmp_path):
    """Where numba may write nowhere, kernels are compiled for the process alone."""
    code = (
        "import numba.core.caching as c\n"
        "c.CacheImpl._locator_classes = []\n"
        "from bozzetto.raster.threads import compiled\n"
        "f = compiled(lambda x: x + 1)\n"
        "assert f(2) == 3\n"
    )
    code = code.replace("lambda x: x + 1", "g").replace("f = ", "def g(x):\n    return x + 1\nf = ")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
