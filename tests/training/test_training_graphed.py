"""A network whose launches are recorded trains as it does without."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.training.graphed import graph_network


def test_nothing_is_recorded_on_a_cpu():
    model = nn.Linear(2, 2)
    assert not graph_network(model, (torch.zeros(1, 2),)) and model(torch.ones(1, 2)).shape == (1, 2)


def descend(model: nn.Module, inputs: list[torch.Tensor], amp: bool) -> tuple[list[float], nn.Module]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    losses = []
    for x in inputs:
        with torch.autocast("cuda", torch.bfloat16, enabled=amp):
            y = model(x)
        loss = (y.float() - x[:, :, :1].mean()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return losses, model


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", [False, True])
def test_a_recorded_network_trains_like_an_eager_one(amp):
    torch.manual_seed(0)
    config = preset("debug")
    eager = LGM(config).cuda().to(memory_format=torch.channels_last)
    recorded = copy.deepcopy(eager)
    size = config.input_size
    inputs = [torch.rand(2, 4, config.in_channels, size, size, device="cuda") for _ in range(6)]
    assert graph_network(recorded, (inputs[0],), torch.bfloat16 if amp else None)
    assert [n for n, _ in recorded.named_parameters()] == [n for n, _ in eager.named_parameters()]
    losses = [descend(m, inputs, amp)[0] for m in (eager, recorded)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2 if amp else 1e-3)
    assert losses[0][-1] < losses[0][0]
    for a, b in zip(eager.parameters(), recorded.parameters()):
        assert ((a - b).norm() / a.norm().clamp_min(1e-3)).item() < (0.1 if amp else 1e-2)
    with torch.no_grad():  # in evaluation mode, and with other shapes, calls stay eager
        assert recorded.eval()(inputs[0][:1]).shape[0] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_that_waits_for_the_device_stays_as_it_is():
    class Waits(nn.Linear):
        def forward(self, x):
            return super().forward(x) * float(x.sum())

    model, x = Waits(2, 2).cuda(), torch.ones(1, 2, device="cuda")
    assert not graph_network(model, (x,))
    assert float(model(x).sum().detach()) == float(model(x).sum().detach())
