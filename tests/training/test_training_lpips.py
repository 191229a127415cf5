"""LPIPS-VGG against the published implementation, with filled weights."""

import json

import numpy as np
import pytest
import torch

from bozzetto.errors import CheckpointError
from bozzetto.training.lpips import LPIPS


@pytest.fixture(scope="module")
def published(shared, fill) -> dict[str, torch.Tensor]:
    """A state dict with the published keys, every head twice, filled as the reference data says."""
    keys = json.loads((shared / "parity" / "lgm" / "goldens_lpips.json").read_text())["lpips_vgg.npz"]["config"]["keys"]
    own, state = LPIPS().state_dict(), {}
    for key in keys:
        value = own[key.replace("lins.", "lin")]
        if not key.startswith("scaling_layer"):
            value = torch.from_numpy(np.asarray(fill.fill_array(key, tuple(value.shape))))
        state[key] = value.abs() if key.startswith("lin") else value
    return state


def test_equals_the_published_implementation(published, shared, fill):
    golden = np.load(shared / "parity" / "lgm" / "lpips_vgg.npz")
    model = LPIPS().load_published(published)
    a, b = (torch.from_numpy(fill.test_input(f"lpips/{name}", (2, 3, 48, 48), -1, 1)) for name in "ab")
    assert np.abs(model(a, b).numpy() - golden["lpips_ab"].ravel()).max() < 1e-6
    assert np.abs(model(a, 0.9 * a + 0.1 * b).numpy() - golden["lpips_near"].ravel()).max() < 1e-6
    for i, features in enumerate(model.net(model.scaling_layer(a))):
        assert np.abs(features.mean((2, 3)).numpy() - golden[f"vgg_slice{i}_mean"]).max() < 1e-5


def test_strict_loading(published):
    missing = {key: value for key, value in published.items() if key != "net.slice3.12.bias"}
    with pytest.raises(CheckpointError, match=r"net\.slice3\.12\.bias"):
        LPIPS().load_published(missing)
    with pytest.raises(CheckpointError, match="extra"):
        LPIPS().load_published({**published, "extra": torch.zeros(1)})


def test_gradient_of_equal_pictures_is_finite():
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    result = LPIPS()(image, image.detach())
    result.sum().backward()
    assert float(result.detach()) == 0 and bool(image.grad.isfinite().all())
