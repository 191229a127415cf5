"""The Triton back end: kernels for CUDA devices, compiled at first use by Triton itself.

Model: :mod:`bozzetto.raster.reference`. Five stages, each over all scenes and views at once: project
(:mod:`.triton_project`), list the Gaussians of every cell of 8 x 8 pixels (:mod:`.triton_lists`), blend
(:mod:`.triton_blend`) and its gradient (:mod:`.triton_blend_gradient`), gradient of the projection
(:mod:`.triton_project_gradient`). Gradients of one Gaussian are summed over cells with atomic additions, so their last
bits may differ from run to run.

The host waits once, when everything is enqueued, for the size of the lists (:mod:`.triton_room`). In a CUDA graph it
does not: record a call after one with similar inputs, and ask :meth:`bozzetto.raster.Rendering.check` after replays.

With ``TRITON_INTERPRET=1`` set before Triton is first imported, the same kernels run on CPU tensors (slowly, for
tests).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import CapacityError, MissingDependencyError

try:
    import triton
except ImportError as error:
    raise MissingDependencyError(
        "the triton rasterizer needs the package 'triton' (Linux): pip install 'bozzetto[gpu]', or use backend='cpu'"
    ) from error

from .triton_blend import blend, blend_kernel
from .triton_blend_gradient import blend_gradient
from .triton_launch import aligned
from .triton_lists import list_cells
from .triton_project import Layout, project
from .triton_project_gradient import project_gradient
from .triton_room import Reading, RecordedNeed, expected, known, learn

INTERPRETED = not isinstance(blend_kernel, triton.JITFunction)


def _draw(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    background: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    layout: Layout,
    keep: bool,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...] | None, RecordedNeed | None]:
    """Pictures; if ``keep``, what the gradient needs besides the inputs; how to check a recorded call."""
    kind = (means.device, layout.cameras, layout.height, layout.width)
    rows = layout.cameras * layout.n
    recording = means.is_cuda and torch.cuda.is_current_stream_capturing()
    if recording and not known(kind):
        raise CapacityError("rasterize once with inputs like these before you record it in a CUDA graph")
    while True:
        room = expected(kind, rows, recording)
        records, pairs, table, needed = project(means, quats, scales, opacities, sh, view, intrinsics, layout, room)
        lists = list_cells(records, pairs, table, needed, layout, room)
        del pairs, table
        reading = None if recording else Reading(needed)
        pictures, kept = blend(records, *lists, background, layout.height, layout.width, keep)
        saved = (records, *lists, *kept) if keep else None
        if reading is None:
            return pictures, saved, RecordedNeed(room, needed, kind, rows)
        numbers = reading.result()
        learn(kind, rows, numbers)
        if room.holds(numbers):
            return pictures, saved, None
        del records, lists, pictures, kept, saved


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, sh, background, view, intrinsics, layout, shape, recorded):
        pictures, saved, need = _draw(means, quats, scales, opacities, sh, background, view, intrinsics, layout, True)
        ctx.save_for_backward(means, quats, scales, sh, background, view, intrinsics, *saved)
        ctx.layout = layout
        ctx.set_materialize_grads(False)
        recorded.append(need)
        return _shaped(pictures, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rgb, grad_alpha, grad_depth):
        means, quats, scales, sh, background, view, intrinsics, records, ids, counts, ends, *kept = ctx.saved_tensors
        transmittance = kept[0]
        grad_rgb = transmittance.new_zeros(*transmittance.shape, 3) if grad_rgb is None else _plain(grad_rgb)
        grad_alpha = torch.zeros_like(transmittance) if grad_alpha is None else _plain(grad_alpha)
        if grad_depth is not None:
            grad_depth = _plain(grad_depth)
        gradients: tuple[Tensor | None, ...] = (None,) * 5
        with torch.cuda.device_of(means):
            if any(ctx.needs_input_grad[:5]):
                moments = blend_gradient(records, ids, counts, ends, background, kept, grad_rgb, grad_alpha, grad_depth)
                gradients = project_gradient(means, quats, scales, sh, view, intrinsics, records, moments, ctx.layout)
            grad_background = None
            if ctx.needs_input_grad[5]:
                seen = (grad_rgb.view(*transmittance.shape, 3) * transmittance[..., None]).sum((1, 2))
                grad_background = seen.reshape(background.shape)
        return *gradients, grad_background, *(None,) * 5


def _plain(tensor: Tensor) -> Tensor:
    """float32, contiguous, aligned; in the common case the same tensor."""
    if tensor.dtype is not torch.float32:
        tensor = tensor.float()
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    return aligned(tensor)


def _shaped(pictures: tuple[Tensor, Tensor, Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    rgb, alpha, depth = pictures
    return rgb.view(*shape, 3), alpha.view(shape), depth.view(shape)


def _steps(tensor: Tensor, scenes: int, views: int, tail: tuple[int, ...]) -> tuple[Tensor, int, int]:
    """Cameras' numbers ([*scenes, V, *tail] or [V, *tail], float32) so that the last dimensions lie together, and the elements
    from one scene and from one view to the next."""
    inner = (4, 1)[-len(tail) :]
    if tensor.dtype is not torch.float32:
        tensor = tensor.float()
    if tensor.stride()[-len(tail) :] != inner:
        tensor = tensor.contiguous()
    dimensions = tensor.ndim - len(tail)
    if dimensions > 2:
        tensor = tensor.reshape(scenes, views, *tail)
    tensor = aligned(tensor)
    return tensor, tensor.stride(0) if dimensions > 1 else 0, tensor.stride(-len(tail) - 1)


_black: dict[tuple, Tensor] = {}  # backgrounds of one colour, per device and number of pictures
BACKGROUNDS = 64


def plain_background(colour: tuple[float, float, float], cameras: int, device: torch.device) -> Tensor:
    """[cameras, 3] of one colour, made once; without a copy from the host."""
    key = (colour, cameras, device)
    background = _black.get(key)
    if background is None:
        with torch.inference_mode(False), torch.no_grad():
            background = torch.empty(cameras, 3, device=device)
            for i, value in enumerate(colour):
                background[:, i] = value
        if not (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            if len(_black) >= BACKGROUNDS:
                _black.clear()
            _black[key] = background
    return background


def render(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    background: Tensor | tuple[float, float, float],
    scenes: tuple[int, ...],
    views: int,
    height: int,
    width: int,
    near: float,
    far: float,
    poses: bool,
) -> tuple[Tensor, Tensor, Tensor, RecordedNeed | None]:
    """Render scenes of any batch shape, all from V views.

    Args:
        means [*scenes, N, 3], quats [*scenes, N, 4], scales [*scenes, N, 3], opacities [*scenes, N], sh [*scenes, N, K, 3].
        view: [*scenes, V, 4, 4] or, for all scenes, [V, 4, 4]; intrinsics alike, [..., 4].
        background: one colour, or a tensor that broadcasts to [*scenes, V, 3].
        poses: what ``view`` and ``intrinsics`` hold: see :class:`.triton_project.Layout`.

    Returns:
        rgb [*scenes, V, H, W, 3], alpha and depth [*scenes, V, H, W]; how to check a recorded call, otherwise None.

    Raises:
        ValueError: for tensors that are not on a CUDA device (unless Triton interprets).
        CapacityError: more list entries than can be counted, or a first call that is recorded.
    """
    if not means.is_cuda and not INTERPRETED:
        raise ValueError(
            f"the triton rasterizer needs tensors on a CUDA device, these are on {means.device}; "
            "move them there or use backend='cpu'"
        )
    shape = (*scenes, views, height, width)
    n, k = means.shape[-2], sh.shape[-2]
    s = 1
    for size in scenes:
        s *= size
    cameras = s * views
    if isinstance(background, tuple):
        background = plain_background(background, cameras, means.device)
    elif background.shape != (*scenes, views, 3) or not background.is_contiguous():
        background = background.expand(*scenes, views, 3).contiguous()
    if cameras == 0 or n == 0:
        rgb = background.reshape(*shape[:-2], 1, 1, 3).expand(*shape, 3).contiguous()
        return rgb, rgb.new_zeros(shape), rgb.new_zeros(shape), None
    view, view_scene, view_step = _steps(view, s, views, (4, 4))
    intrinsics, lens_scene, lens_step = _steps(intrinsics, s, views, (4,))
    layout = Layout(
        s, views, n, k, height, width, max(float(near), 0.0), float(far), poses,
        view_scene, view_step, lens_scene, lens_step,
    )  # fmt: skip
    tensors = [_plain(t) for t in (means, quats, scales, opacities, sh, background)]
    with torch.cuda.device_of(means):
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            recorded: list[RecordedNeed | None] = []
            pictures = _Rasterize.apply(*tensors, view, intrinsics, layout, shape, recorded)
            return *pictures, recorded[0]
        pictures, _, need = _draw(*tensors, view, intrinsics, layout, False)
        return *_shaped(pictures, shape), need


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
        As :func:`render`.
    """
    scenes, views = view.shape[:2]
    return render(
        means,
        quats,
        scales,
        opacities,
        sh,
        view,
        intrinsics,
        background,
        (scenes,),
        views,
        height,
        width,
        near,
        far,
        False,
    )[:3]
