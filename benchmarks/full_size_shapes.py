"""Made-up weights that give an object of about the usual size, for ``full_size.py``: random ones alone would give an empty shape.

Each function sets a few of a network's drawn tensors in place.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def shape_lgm(state: State) -> None:
    """Small, mostly opaque Gaussians."""
    weight, bias = state["conv.weight"], state["conv.bias"]
    weight *= 0.3
    bias[3] += 2.0  # opacity
    bias[4:7] -= 3.0  # scale
    bias[7] += 2.0  # w of the quaternion


def shape_triposr(state: State, radius2: float = 0.3) -> None:
    """A slightly rough ball: channel 0 of the planes is the squared distance from their middle (the cube's side is 2), and
    neuron 0 of the decoder falls with it. ``radius2``: the ball's squared radius at the usual threshold of 25.
    """
    tokens = state["tokenizer.embeddings"]  # [3, C, P, P]
    tokens *= tokens.shape[-1]  # the rule for matrices made them faint
    axis = (torch.arange(tokens.shape[-1]) + 0.5) / tokens.shape[-1] * 2 - 1
    tokens[:, 0] = axis[:, None] ** 2 + axis**2
    for key in ("backbone.proj_out.weight", "backbone.proj_out.bias"):
        state[key][0] = 0.0
    up = state["post_processor.upsample.weight"]  # [C, C', 2, 2]
    up *= (4 * up.shape[1] / up.shape[0]) ** 0.5
    up[:, 0] = 0.0
    up[0, 0] = 1.0
    state["post_processor.upsample.bias"][0] = 0.0
    numbers = sorted(int(k.split(".")[2]) for k in state if k.startswith("decoder.layers.") and k.endswith("weight"))
    first, *middle, last = (f"decoder.layers.{i}" for i in numbers)
    start, slope = 10.0, 4.0
    state[f"{first}.weight"][0] = 0.0
    state[f"{first}.weight"][0, :: up.shape[1]] = -slope  # channel 0 of each plane; their sum is twice the square
    state[f"{first}.bias"][0] = start
    at_surface = F.silu(torch.tensor(start - 2 * slope * radius2))
    for layer in middle:
        _hand_on(state, layer)
        at_surface = F.silu(at_surface)
    state[f"{last}.weight"][0] *= 0.1
    state[f"{last}.weight"][1:] *= 4.0  # colours
    state[f"{last}.weight"][0, 0] = 6.0
    state[f"{last}.bias"][0] = math.log(25.0) + 1.0 - 6.0 * at_surface  # the density is exp(output - 1)


def shape_transmitter(state: State, radius: float = 0.6) -> None:
    """Nearly balls: channel 0 of the function is cos x + cos y + cos z, handed on from layer to layer; the latent, which
    enters through the normalised projections, bends it a little. ``radius``: where signed distance and density begin.
    """
    for i in range(4):
        prefix = f"encoder.params_proj.projections.nerstf__mlp__{i}__weight"
        gain = state[f"{prefix}.norm.weight"]  # [columns]
        rows = state[f"{prefix}.proj.bias"].reshape(-1, len(gain))  # [rows, columns], shared memory
        used = torch.ones(len(gain))
        if i == 0:  # of the positional code only the coordinates and the lowest waves: no fine detail
            used[6:48] = used[51:] = 0.0
        gain.copy_(0.05 * used / used.sum().sqrt())
        state[f"{prefix}.norm.bias"].zero_()
        rows *= 20 * used / used.sum().sqrt()  # vectors are drawn with 0.05
        rows[0] = 0.0
        rows[0, 48 : 51 if i == 0 else 48] = 1.0
        if i:
            rows[0, 0] = 1.0
        state[f"renderer.nerstf.mlp.{i}.bias"][0] = 0.0
    for i in (4, 5):
        _hand_on(state, f"renderer.nerstf.mlp.{i}")
    surface = torch.tensor(2 + math.cos(radius))
    for _ in range(6):
        surface = F.silu(surface)
    weight, bias = state["renderer.nerstf.mlp.6.weight"], state["renderer.nerstf.mlp.6.bias"]
    weight[:3], weight[3:, 0] = 0.0, 0.0
    for row, slope in enumerate((4.0, 200.0, 200.0)):  # signed distance, coarse and fine density
        weight[row, 0], bias[row] = slope, -slope * surface
    state["renderer.void.background"].zero_()


def _hand_on(state: State, layer: str) -> None:
    """Neuron 0 of a layer passes on neuron 0 of the layer before."""
    state[f"{layer}.weight"][0] = 0.0
    state[f"{layer}.weight"][0, 0] = 1.0
    state[f"{layer}.bias"][0] = 0.0
