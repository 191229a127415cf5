"""The Triton back end: kernels for CUDA devices, compiled at first use by Triton itself.

Model: :mod:`bozzetto.raster.reference`. Five stages, each over all scenes and views at once: project
(:mod:`.triton_project`), list the Gaussians of every cell of 8 x 8 pixels (:mod:`.triton_bins`), blend
(:mod:`.triton_blend`) and its gradient (:mod:`.triton_blend_gradient`), gradient of the projection
(:mod:`.triton_project_gradient`). Gradients of one Gaussian are summed over cells with atomic additions, so their last
bits may differ from run to run.

With ``TRITON_INTERPRET=1`` set before Triton is first imported, the same kernels run on CPU tensors (slowly, for
tests).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import MissingDependencyError

try:
    import triton
except ImportError as error:
    raise MissingDependencyError(
        "the triton rasterizer needs the package 'triton' (Linux): pip install 'bozzetto[gpu]', or use backend='cpu'"
    ) from error

from .triton_bins import bin_tiles
from .triton_blend import blend, blend_kernel
from .triton_blend_gradient import blend_gradient
from .triton_project import project
from .triton_project_gradient import project_gradient

INTERPRETED = not isinstance(blend_kernel, triton.JITFunction)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, sh, background, view, intrinsics, height, width, near, far):
        records, keys, rectangles, counts = project(
            means, quats, scales, opacities, sh, view, intrinsics, height, width, near, far
        )
        lists = bin_tiles(records, keys, rectangles, counts, height, width)
        del keys, counts
        keep = any(ctx.needs_input_grad)
        ctx.set_materialize_grads(False)
        pictures, kept = blend(records, *lists, background, height, width, keep)
        if keep:
            ctx.save_for_backward(
                means, quats, scales, sh, background, view, intrinsics, records, rectangles, *lists, *kept
            )
            ctx.size = height, width
        return pictures

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rgb, grad_alpha, grad_depth):
        means, quats, scales, sh, background, view, intrinsics, records, rectangles, *lists = ctx.saved_tensors
        ids, counts, ends, *kept = lists
        grad_rgb = kept[0].new_zeros(*kept[0].shape, 3) if grad_rgb is None else grad_rgb.float().contiguous()
        grad_alpha = torch.zeros_like(kept[0]) if grad_alpha is None else grad_alpha.float().contiguous()
        if grad_depth is not None:
            grad_depth = grad_depth.float().contiguous()
        gradients: tuple[Tensor | None, ...] = (None,) * 5
        with torch.cuda.device_of(means):
            if any(ctx.needs_input_grad[:5]):
                moments = blend_gradient(records, ids, counts, ends, background, kept, grad_rgb, grad_alpha, grad_depth)
                gradients = project_gradient(
                    means, quats, scales, sh, view, intrinsics, rectangles, records, moments, *ctx.size
                )
            grad_background = None
            if ctx.needs_input_grad[5]:
                grad_background = torch.einsum("chwk,chw->ck", grad_rgb, kept[0]).reshape(background.shape)
        return *gradients, grad_background, *(None,) * 6


def rasterize_triton(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    height: int,
    width: int,
    near: float,
    far: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Render S scenes from V views each; shapes as in :mod:`bozzetto.raster.api`, float32 and contiguous.

    Returns:
        rgb [S, V, H, W, 3], alpha [S, V, H, W], depth [S, V, H, W].

    Raises:
        ValueError: for tensors that are not on a CUDA device (unless Triton interprets).
    """
    scenes, n = means.shape[:2]
    views = view.shape[1]
    if not means.is_cuda and not INTERPRETED:
        raise ValueError(
            f"the triton rasterizer needs tensors on a CUDA device, these are on {means.device}; "
            "move them there or use backend='cpu'"
        )
    if scenes * views == 0 or n == 0:
        rgb = background[:, :, None, None, :].expand(scenes, views, height, width, 3).contiguous()
        return rgb, rgb.new_zeros(rgb.shape[:-1]), rgb.new_zeros(rgb.shape[:-1])
    with torch.cuda.device_of(means):
        rgb, alpha, depth = _Rasterize.apply(
            means,
            quats,
            scales,
            opacities,
            sh,
            background,
            view,
            intrinsics,
            height,
            width,
            max(float(near), 0.0),
            float(far),
        )
    shape = (scenes, views, height, width)
    return rgb.reshape(*shape, 3), alpha.reshape(shape), depth.reshape(shape)
