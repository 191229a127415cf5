"""LGM's and L4GM's networks with the kernels against the plain path, values and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bozzetto.nn import backend, group_norm, residual, upsample
from bozzetto.nn.layout import for_inference
from bozzetto.systems.l4gm import network as l4gm_network
from bozzetto.systems.l4gm.network import L4GM
from bozzetto.systems.lgm import blocks
from bozzetto.systems.lgm.network import LGM, LGMConfig
from bozzetto.systems.lgm.presets import preset

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MICRO = LGMConfig(
    input_size=8,
    down_channels=(32, 64),
    down_attention=(False, True),
    up_channels=(64, 32),
    up_attention=(True, False),
    layers_per_block=1,
    num_heads=4,
    splat_size=8,
)


def switch(monkeypatch, kernels: bool) -> None:
    for module in (blocks, l4gm_network, group_norm, residual):
        monkeypatch.setattr(module, "use_kernels", lambda x: kernels)


@pytest.mark.parametrize("name", ["LGM", "lgm-mini", "L4GM"])
def test_values_and_gradients(monkeypatch, name):
    torch.manual_seed(0)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if name == "L4GM":
        net, inputs = L4GM(MICRO), torch.randn(1, 2, 2, 9, 8, 8)
    else:
        net = LGM(MICRO if name == "LGM" else replace(preset("debug"), input_size=16))
        inputs = torch.randn(1, 2, net.config.in_channels, *(2 * [net.config.input_size]))
    for parameter in net.parameters():  # biases and gains that matter
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.1)
    net, inputs = net.to(DEVICE), inputs.to(DEVICE)
    results = []
    for kernels in False, True:
        switch(monkeypatch, kernels)
        net.zero_grad()
        raw = net(inputs)
        (raw * torch.linspace(0.5, 1.5, raw.shape[-1], device=DEVICE)).sum().backward()
        results.append((raw.detach(), {k: p.grad.clone() for k, p in net.named_parameters()}))
    (plain, slopes), (lean, lean_slopes) = results
    assert (lean - plain).abs().max() < 2e-5 * plain.abs().max()
    scale = max(float(slope.abs().max()) for slope in slopes.values())
    for key, slope in slopes.items():  # some are sums that cancel
        assert (lean_slopes[key] - slope).abs().max() <= 2e-4 * slope.abs().max() + 1e-5 * scale, key


@pytest.mark.parametrize("kind", [LGM, L4GM])
def test_half_precision_without_gradients(monkeypatch, kind):
    """Shortcuts and projections end in one kernel then, whose moments the next norm uses: 16 x 16 pixels of 64 channels."""
    kernel = backend.pointwise_kernel()
    if not kernel.usable(torch.device(DEVICE)):
        pytest.skip("the kernel is not used on this device")
    torch.manual_seed(1)
    net = kind(replace(MICRO, input_size=16, down_channels=(64, 128), up_channels=(128, 64), splat_size=16))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.1)
    net = net.to(DEVICE).eval().requires_grad_(False)
    inputs = torch.randn((1, 2, 2, 9, 16, 16) if kind is L4GM else (1, 2, 9, 16, 16), device=DEVICE).half()
    monkeypatch.setattr(kernel, "PROGRAMS", 1)
    monkeypatch.setattr(kernel, "LARGE", 256)
    launched = []
    launch = kernel.launch
    monkeypatch.setattr(kernel, "launch", lambda *given: (launched.append(given), launch(*given)))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    switch(monkeypatch, False)
    exact = net(inputs.float())
    net.half().to(memory_format=torch.channels_last)
    plain = net(inputs)
    assert not launched
    switch(monkeypatch, True)
    lean = net(inputs)
    shortcuts = 5  # 64 -> 128; up: 128 + 128 -> 128, 128 + 64 -> 128; 128 + 64 -> 64, 64 + 64 -> 64
    attentions = 4 if kind is LGM else 8
    assert len(launched) == shortcuts + attentions
    assert (lean.float() - exact).norm() < 1.2 * (plain.float() - exact).norm()


def test_folded_forms_of_l4gm(monkeypatch):
    """Doubling as a transposed convolution whose bias others add, and one convolution at the end instead of two."""
    torch.manual_seed(2)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    net, inputs = L4GM(MICRO), torch.randn(1, 2, 2, 9, 8, 8, device=DEVICE)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.1)
    net = net.to(DEVICE).eval().requires_grad_(False)
    switch(monkeypatch, False)
    expected, keys = net(inputs), list(net.state_dict())
    switch(monkeypatch, True)
    monkeypatch.setattr(upsample, "use_kernels", lambda x: True)
    monkeypatch.setattr(upsample.UpsampleConv, "forward", None)  # not called
    for_inference(net)
    assert net.unet.up_blocks[0].upsample.turned is not None and net.last.shape == (16, 32, 3, 3)
    assert (net(inputs) - expected).abs().max() < 2e-5 * expected.abs().max()
    assert list(net.state_dict()) == keys
    net.load_state_dict(net.state_dict())
    assert net.last is None and net.unet.up_blocks[0].upsample.turned is None
    net.fold_weights()
    assert net.last is not None and net.train().last is None
