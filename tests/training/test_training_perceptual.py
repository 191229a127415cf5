"""Perceptual distance: the network itself without weights, and with them what it sees and how it judges."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bozzetto.errors import CheckpointError, MissingDependencyError
from bozzetto.training.perceptual import (
    ARCHITECTURES,
    Convolution,
    FeatureNet,
    PerceptualDistance,
    load_features,
    load_perceptual,
    weights_file,
)

NAMES = sorted(ARCHITECTURES)


def random_distance(name: str = "mobilenet_v2") -> PerceptualDistance:
    torch.manual_seed(0)
    return PerceptualDistance(FeatureNet(ARCHITECTURES[name]))


@pytest.fixture(params=NAMES)
def trained(request) -> tuple[str, PerceptualDistance]:
    try:
        return request.param, load_perceptual(request.param)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "channels"), [("mobilenet_v2", [16, 24, 32, 96, 320]), ("efficientnet_lite0", [16, 24, 40, 112, 320])]
)
def test_taps(name, channels):
    features = FeatureNet(ARCHITECTURES[name])(torch.rand(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [(c, 32 >> i, 48 >> i) for i, c in enumerate(channels)]


@pytest.mark.parametrize("length", [7, 8, 15])
@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_puts_the_odd_pixel_after(length, kernel):
    layer = Convolution(1, 1, kernel, 2, linear=True, same_padding=True)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    total = max((math.ceil(length / 2) - 1) * 2 + kernel - length, 0)
    padded = np.pad(np.ones((length, length)), (total // 2, total - total // 2))
    expected = [padded[:kernel, i : i + kernel].sum() for i in range(0, padded.shape[0] - kernel + 1, 2)]
    result = layer(torch.ones(1, 1, length, length))
    assert result.shape[-1] == math.ceil(length / 2)
    assert result[0, 0, 0].tolist() == expected


def test_equal_pictures_have_distance_and_gradient_zero():
    distance = random_distance()
    image = torch.rand(2, 3, 64, 64, requires_grad=True)
    result = distance(image, image.detach())
    result.sum().backward()
    assert result.tolist() == [0, 0] and float(image.grad.abs().max()) == 0


@pytest.mark.parametrize("value", [0.0, 1.0, 0.485])
def test_gradients_are_finite_for_flat_pictures(value):
    image = torch.full((1, 3, 64, 64), value, requires_grad=True)
    random_distance()(image, torch.rand(1, 3, 64, 64)).sum().backward()
    assert bool(image.grad.isfinite().all()) and float(image.grad.abs().max()) > 0


def test_features_of_length_zero():
    distance = random_distance()
    for parameter in distance.parameters():
        parameter.zero_()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    distance(image, torch.rand(1, 3, 64, 64)).sum().backward()
    assert bool(image.grad.isfinite().all())


def test_gradient_is_that_of_differences():
    distance = random_distance().double()
    generator = torch.Generator().manual_seed(1)
    image, target, step = torch.rand(3, 1, 3, 64, 64, generator=generator, dtype=torch.float64)
    image.requires_grad_()
    distance(image, target).sum().backward()
    # Lengths are computed in float32, hence the coarse step and tolerance.
    change = (distance(image + 1e-2 * step, target) - distance(image - 1e-2 * step, target)) / 2e-2
    assert float(change.detach()) == pytest.approx(float((image.grad * step).sum()), rel=0.02)


def test_frozen_and_symmetric():
    distance = random_distance().train()
    assert not distance.net.training and not any(p.requires_grad for p in distance.parameters())
    a, b = torch.rand(2, 2, 3, 64, 64)
    assert torch.allclose(distance(a, b), distance(b, a), atol=1e-6)
    with pytest.raises(ValueError, match="N, 3, H, W"):
        distance(a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1))


def test_missing_weights_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("BOZZETTO_CACHE", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"tools/fetch_perceptual\.py"):
        load_perceptual()
    with pytest.raises(ValueError, match="known: mobilenet_v2"):
        load_perceptual("vgg16")


def test_round_trip_and_wrong_weights(tmp_path):
    from safetensors.torch import save_file

    net = FeatureNet(ARCHITECTURES["mobilenet_v2"])
    file = tmp_path / "mobilenet_v2_features.safetensors"
    save_file({key: value.half() for key, value in net.state_dict().items()}, file)
    loaded = load_features("mobilenet_v2", tmp_path)
    assert torch.equal(loaded.stem.weight, net.stem.weight.half().float())
    save_file({"stem.weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="does not hold the features"):
        load_features("mobilenet_v2", file)
    file.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="does not hold the features"):
        load_features("mobilenet_v2", file)


def test_fetch_tool_explains_itself(request):
    tool = request.config.rootpath / "tools" / "fetch_perceptual.py"
    result = subprocess.run([sys.executable, str(tool), "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "--output" in result.stdout


def photo(shared, name: str, size: int) -> torch.Tensor:
    """Square middle of a photo: [1, 3, size, size]."""
    from PIL import Image

    image = Image.open(shared / "photos" / name).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).float().permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize(("name", "label"), [("coffee_cup.png", 967), ("pink_handbag.jpg", 748)])  # espresso, purse
def test_the_network_names_what_it_sees(trained, shared, name, label):
    from safetensors.torch import load_file

    network, distance = trained
    file = weights_file(network).with_name(f"{network}_classifier.safetensors")
    if not file.is_file():
        pytest.skip(f"no classifier at {file}")
    last = {key: value.float() for key, value in load_file(file).items()}
    x = distance.net(photo(shared, name, 224))[-1]
    x = F.relu6(F.conv2d(x, last["head.weight"], last["head.bias"])).mean((2, 3))
    probability = F.linear(x, last["classifier.weight"], last["classifier.bias"]).softmax(-1)[0]
    assert int(probability.argmax()) == label and float(probability[label]) > 0.8


@pytest.mark.parametrize("name", ["kitten.jpg", "dahlia_flower.jpg"])
def test_blur_is_judged_worse_than_brightness_of_equal_error(trained, shared, name):
    image = photo(shared, name, 256)
    blurred = F.interpolate(F.interpolate(image, 64, mode="area"), 256, mode="bilinear")
    brighter = image + (blurred - image).square().mean().sqrt()
    _, distance = trained
    assert float(distance(blurred, image)) > 3 * float(distance(brighter, image))


def test_bfloat16_is_close(trained):
    _, distance = trained
    a, b = torch.rand(2, 1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rough = distance(a, b)
    assert rough.dtype == torch.float32
    assert float(rough) == pytest.approx(float(distance(a, b)), rel=0.03)
