"""TripoSR's network laid out for inference on a GPU: the same function as :class:`.network.TripoSR`, in fewer and larger steps.

Matrix products are half precision; the running sums of the two transformers, the norms and the planes stay float32.

* Queries, keys and values of an attention come from one product; keys and values that all layers of the backbone take from the
  image tokens come from one product for all layers.
* What does not depend on the photo is computed once: position embeddings, the learned tokens after their norm and projection,
  and the first block's self-attention.
* The photo's normalisation is part of the patch embedding. The last projection, the sum with the learned tokens and the
  transposed convolution are linear, hence one small float32 product.
* A residual sum and the layer norm after it are one pass over memory.
* The launches of a repeated call are recorded as a CUDA graph.
"""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.backend import use_kernels
from ...nn.graphs import Captured
from ...nn.tokens import geglu
from .config import TripoSRConfig
from .network import Block, NeRFMLP, TripoSR
from .vit import IMAGENET_MEAN, IMAGENET_STD, Layer

Linear = tuple[Tensor, Tensor | None]  # weight [outputs, inputs], bias [outputs]


class InferenceTripoSR:
    """The network's function in half precision. It keeps nothing of the network that it is made from but the decoder.

    Attributes:
        dtype: of the matrix products.
        decoder: as in :class:`.network.TripoSR`, float32.
    """

    def __init__(self, network: TripoSR, dtype: torch.dtype = torch.float16) -> None:
        """
        Args:
            network: on the device that is to compute, in evaluation mode; best in float32, for what is derived here.
            dtype: float16, or bfloat16 (an eighth of the digits, never overflows); float32 for comparisons.
        """
        self.config: TripoSRConfig = network.config
        self.decoder: NeRFMLP = network.decoder
        self.dtype = dtype
        with torch.no_grad():
            self._prepare(network)
        self._captured = _captured(self)

    def __call__(self, images: Tensor) -> Tensor:
        """Photos [B, 3, S, S] on grey, rgb 0..1, S = ``config.cond_image_size`` -> triplanes [B, 3, C, 2P, 2P] float32."""
        size = self.config.cond_image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(f"expected photos [B, 3, {size}, {size}], got {tuple(images.shape)}")
        with torch.no_grad():
            return self._captured(images.to(self.start))

    def in_precision(self, dtype: torch.dtype) -> InferenceTripoSR:
        """The same with products in another precision, from the weights as they are here."""
        other = object.__new__(InferenceTripoSR)
        for name, value in vars(self).items():
            setattr(other, name, value if name == "decoder" else _converted(value, self.dtype, dtype))
        other.dtype = dtype
        other._captured = _captured(other)
        return other

    def _prepare(self, network: TripoSR) -> None:
        config = self.config
        vit = network.image_tokenizer.model
        side = config.cond_image_size // config.vit.patch_size
        patch = vit.embeddings.patch_embeddings["projection"]
        weight = patch.weight.float()  # [C, 3, p, p]
        mean, std = (weight.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        bias = patch.bias.float() - (weight * (mean / std)).flatten(1).sum(1)
        self.patch = self._half((weight / std).flatten(1))
        first = vit.embeddings.cls_token.float()[0]  # [1, C]
        positions = vit.embeddings.positions(side, side).float()[0]
        self.positions = positions + torch.cat([first, bias.expand(side * side, -1)])  # [1 + side², C]
        self.layers = [_ViTLayer(layer, self) for layer in vit.encoder["layer"]]
        self.vit_norm = _norm(vit.layernorm)

        backbone, blocks = network.backbone, network.backbone.transformer_blocks
        tokens = network.tokenizer(1)  # [1, C, N]
        keys = [torch.cat([b.attn2.to_k.weight, b.attn2.to_v.weight]) for b in blocks]
        self.cross = self._half(torch.cat(keys))  # [layers * 2 C, D]
        self.blocks = [_Block(block, self) for block in blocks]
        # The tokens as they are after the first block's self-attention: no photo has been seen yet.
        x = backbone.proj_in(backbone.norm(tokens).transpose(1, 2))
        y = blocks[0].norm1(x)
        self.start = (x + blocks[0].attn1(y, y)).float()[0]  # [N, C]
        # proj_out, + tokens, transposed convolution with kernel and stride 2
        up = network.post_processor.upsample
        kernel = up.weight.float().flatten(1)  # [C, C' * 2 * 2]
        out = backbone.proj_out
        self.last_weight = kernel.T @ out.weight.float()  # [C' * 4, C]
        constant = (tokens[0].T.float() + out.bias.float()) @ kernel  # [N, C' * 4]
        self.last_bias = constant + up.bias.float().repeat_interleave(4)

    def _half(self, weight: Tensor) -> Tensor:
        return weight.detach().to(self.dtype, copy=True)

    def _linear(self, *modules: nn.Linear) -> Linear:
        """Several linear layers of one input as one."""
        weight = self._half(torch.cat([m.weight for m in modules]))
        return weight, None if modules[0].bias is None else self._half(torch.cat([m.bias for m in modules]))

    def _forward(self, images: Tensor) -> Tensor:
        batch = len(images)
        context = self._image_tokens(images)
        channels = self.start.shape[1]
        cross = F.linear(context, self.cross).unflatten(-1, (len(self.blocks), 2, channels))  # [B, L, layers, 2, C]
        x = self.start.repeat(batch, 1, 1)  # [B, N, C]
        y = None
        for i, block in enumerate(self.blocks):
            y = block(x, y, cross[:, :, i, 0], cross[:, :, i, 1], first=i == 0)
        x += y
        planes = torch.matmul(x, self.last_weight.T) + self.last_bias  # [B, N, C' * 4]
        size = self.config.tokenizer.plane_size
        planes = planes.unflatten(1, (3, size, size)).unflatten(-1, (-1, 2, 2))  # [B, 3, P, Q, C', 2, 2]
        return planes.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, 3, -1, 2 * size, 2 * size)

    def _image_tokens(self, images: Tensor) -> Tensor:
        """Photos [B, 3, S, S] float32 -> [B, 1 + patches, C] in half precision."""
        size = self.config.vit.patch_size
        side = self.config.cond_image_size // size
        patches = images.to(self.dtype).unflatten(3, (side, size)).unflatten(2, (side, size))  # [B, 3, h, p, w, p]
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(len(images), side * side, -1)  # [B, h * w, 3 * p * p]
        x = F.pad(F.linear(patches, self.patch).float(), (0, 0, 1, 0)) + self.positions
        y = None
        for layer in self.layers:
            y = layer(x, y)
        return add_norm(x, y, self.vit_norm, self.dtype)


def _captured(network: InferenceTripoSR) -> Captured:
    """Its forward pass with recorded launches. A weak reference: the memory is free as soon as the network is let go of."""
    forward = weakref.WeakMethod(network._forward)
    return Captured(lambda images: forward()(images))


class _ViTLayer:
    """A layer of the vision transformer; ``x`` is the running sum, ``y`` the branch before that is not yet in it."""

    def __init__(self, layer: Layer, owner: InferenceTripoSR) -> None:
        attention = layer.attention["attention"]
        self.heads = attention.heads
        self.qkv = owner._linear(attention.query, attention.key, attention.value)
        self.out = owner._linear(layer.attention["output"]["dense"])
        self.up, self.down = owner._linear(layer.intermediate["dense"]), owner._linear(layer.output["dense"])
        self.norms = _norm(layer.layernorm_before), _norm(layer.layernorm_after)

    def __call__(self, x: Tensor, y: Tensor | None) -> Tensor:
        dtype = self.up[0].dtype
        qkv = F.linear(add_norm(x, y, self.norms[0], dtype), *self.qkv)
        y = F.linear(_attend(*qkv.chunk(3, dim=-1), self.heads), *self.out)
        return F.linear(F.gelu(F.linear(add_norm(x, y, self.norms[1], dtype), *self.up)), *self.down)


class _Block:
    """A block of the backbone; as :class:`_ViTLayer`, with keys and values of the image tokens given."""

    def __init__(self, block: Block, owner: InferenceTripoSR) -> None:
        first, second = block.attn1, block.attn2
        self.heads = first.heads
        self.qkv, self.out = owner._linear(first.to_q, first.to_k, first.to_v), owner._linear(first.to_out[0])
        self.query, self.out2 = owner._linear(second.to_q), owner._linear(second.to_out[0])
        self.up, self.down = owner._linear(block.ff.net[0].proj), owner._linear(block.ff.net[2])
        self.norms = _norm(block.norm1), _norm(block.norm2), _norm(block.norm3)

    def __call__(self, x: Tensor, y: Tensor | None, keys: Tensor, values: Tensor, first: bool) -> Tensor:
        dtype = self.up[0].dtype
        if not first:  # the first block's self-attention is in x already
            qkv = F.linear(add_norm(x, y, self.norms[0], dtype), *self.qkv)
            y = F.linear(_attend(*qkv.chunk(3, dim=-1), self.heads), *self.out)
        queries = F.linear(add_norm(x, y, self.norms[1], dtype), *self.query)
        y = F.linear(_attend(queries, keys, values, self.heads), *self.out2)
        return F.linear(geglu(F.linear(add_norm(x, y, self.norms[2], dtype), *self.up)), *self.down)


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of [B, N, heads * d] to [B, L, heads * d], which may be parts of wider tensors: nothing is copied."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _norm(norm: nn.LayerNorm) -> tuple[Tensor, Tensor, float]:
    return norm.weight.detach().float(), norm.bias.detach().float(), norm.eps


def add_norm(x: Tensor, y: Tensor | None, norm: tuple[Tensor, Tensor, float], dtype: torch.dtype) -> Tensor:
    """``x += y`` in place for tokens [..., C], ``x`` float32, then their layer norm (weight, bias, eps) in ``dtype``."""
    if use_kernels(x):
        from .triton_norm import add_norm_triton

        return add_norm_triton(x, y, *norm, dtype)
    return add_norm_torch(x, y, norm, dtype)


def add_norm_torch(x: Tensor, y: Tensor | None, norm: tuple[Tensor, Tensor, float], dtype: torch.dtype) -> Tensor:
    """:func:`add_norm` in plain PyTorch."""
    if y is not None:
        x += y
    return F.layer_norm(x, x.shape[-1:], norm[0], norm[1], norm[2]).to(dtype)


def _converted(value: object, old: torch.dtype, new: torch.dtype) -> object:
    """``value`` with its tensors of one precision in another, inside of tuples, lists and layers too."""
    if isinstance(value, Tensor):
        return value.to(new) if value.dtype == old else value
    if isinstance(value, (tuple, list)):
        return type(value)(_converted(v, old, new) for v in value)
    if isinstance(value, (_ViTLayer, _Block)):
        other = object.__new__(type(value))
        vars(other).update({k: _converted(v, old, new) for k, v in vars(value).items()})
        return other
    return value
