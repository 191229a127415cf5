"""The last layers of a network as one convolution: values and gradients of the layers themselves."""

from __future__ import annotations

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.systems.lgm import detail, network
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("name", ["debug", "debug-detail", "debug-cascade"])
def test_values_and_gradients(name, monkeypatch):
    torch.manual_seed(0)
    config = preset(name)
    model = LGM(config).double().to(DEVICE, memory_format=torch.channels_last)
    if model.detail is not None:  # zero before training
        torch.nn.init.normal_(model.detail.conv_out.weight, std=0.1)
        torch.nn.init.normal_(model.detail.conv_out.bias, std=0.1)
    inputs = torch.randn(2, 3, config.in_channels, config.input_size, config.input_size).double().to(DEVICE)
    seen = Cameras.orbit([0.0, 90.0, 200.0], 10.0).to(DEVICE)
    cameras = [t.expand(2, *t.shape) for t in (seen.camera_to_world, seen.intrinsics)] if config.cascade else []
    results = []
    for lean in (lambda x: False, lambda x: True):
        monkeypatch.setattr(network, "lean", lean)
        monkeypatch.setattr(detail, "lean", lean)  # its own first layers, too
        raw = model(inputs, *cameras)
        by = torch.randn(raw.shape, generator=torch.Generator().manual_seed(1)).double().to(DEVICE)
        results.append([raw, *torch.autograd.grad(raw, list(model.parameters()), by)])
    names = ["raw", *(n for n, _ in model.named_parameters())]
    assert results[0][0].shape == results[1][0].shape == (2, 3, 14, config.splat_size, config.splat_size)
    for title, want, got in zip(names, *results):
        assert float((got - want).detach().norm()) <= 1e-6 * float(want.detach().norm()) + 1e-9, title


def test_where_nothing_is_trained_the_layers_stay_apart(monkeypatch):
    monkeypatch.setattr(network, "lean", lambda x: True)
    monkeypatch.setattr(network, "joined", None)
    config = preset("debug")
    with torch.no_grad():
        LGM(config)(torch.zeros(1, 1, config.in_channels, config.input_size, config.input_size))
