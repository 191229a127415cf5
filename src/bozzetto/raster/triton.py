"""The Triton back end: kernels for CUDA devices, compiled at first use by Triton itself.

Model: :mod:`bozzetto.raster.reference`. Five stages, each over all scenes and views at once: project
(:mod:`.triton_project`), list the Gaussians of every cell of 8 x 8 pixels (:mod:`.triton_lists`), blend
(:mod:`.triton_blend`) and its gradient (:mod:`.triton_blend_gradient`), gradient of the projection
(:mod:`.triton_project_gradient`). Gradients of one Gaussian are summed over cells with atomic additions, so their last
bits may differ from run to run.

The host waits once, when everything is enqueued, for the size of the lists (:mod:`.triton_room`). In a CUDA graph it
does not: record a call after one with similar inputs. A replay whose lists do not fit draws NaN and has NaN gradients;
:meth:`bozzetto.raster.Rendering.check` asks.

With ``TRITON_INTERPRET=1`` set before Triton is first imported, the same kernels run on CPU tensors (slowly, for
tests).
"""

from __future__ import annotations

from math import prod

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
from .triton_call import memory
from .triton_launch import ALIGNMENT, aligned
from .triton_layout import Layout, layout_of
from .triton_lists import list_cells
from .triton_project import project
from .triton_project_gradient import project_gradient
from .triton_room import SPARE, SPARE_RECORDED, Reading, RecordedNeed, counters, expected, known, learn

INTERPRETED = not isinstance(blend_kernel, triton.JITFunction)


class _Call:
    """One call of the kernels: what it is, and what they leave.

    Attributes:
        layout, shape: what is drawn, and the shape of a picture of depth.
        spare: see :func:`.triton_room.expected`.
        view, intrinsics: the cameras.
        alpha: as the gradient needs it: without the NaN of a recorded call that did not fit.
        kept: what the gradient reads; None when that is done.
        need: how to check a recorded call, otherwise None.
    """

    __slots__ = ("alpha", "intrinsics", "kept", "kind", "layout", "need", "reading", "room", "shape", "spare", "view")

    def __init__(
        self,
        view: Tensor,
        intrinsics: Tensor,
        layout: Layout,
        shape: tuple[int, ...],
        spare: float,
        device: torch.device,
    ) -> None:
        self.view, self.intrinsics, self.layout, self.shape, self.spare = view, intrinsics, layout, shape, spare
        self.kind = device, layout.cameras, layout.height, layout.width

    def enqueue(
        self,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        sh: Tensor,
        background: Tensor,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """rgb, alpha and depth, which are right if then :meth:`fits` says so. With ``keep`` what the gradient needs stays."""
        device, layout = means.device, self.layout
        recording = _recording(means)
        if recording and not known(self.kind):
            raise CapacityError("rasterize once with inputs like these before you record it in a CUDA graph")
        room = self.room = expected(self.kind, layout.rows, self.spare if recording else SPARE)
        kept, work = memory(layout, room, keep, device)
        needed = counters(device, recording)
        project(
            means, quats, scales, opacities, sh, self.view, self.intrinsics, layout, room,
            kept.records, kept.depths, work.pairs, work.table, needed,
        )  # fmt: skip
        if recording:
            self.reading, poison = None, None
            list_cells(kept, work, needed, layout, room)
            self.need = RecordedNeed(room, needed, self.kind, layout.rows)
            poison = self.need.poison
        else:
            self.reading, self.need, poison = Reading(needed), None, None
            list_cells(kept, work, needed, layout, room, self.reading.target)
            self.reading.enqueued()
        del work  # the pictures may take its place
        rgb, alpha, depth = blend(kept, sh, background, layout, self.shape, poison)
        self.alpha, self.kept = (alpha, kept) if keep else (None, None)
        return rgb, alpha if poison is None else alpha + poison, depth

    def fits(self) -> bool:
        """Whether there was room for the lists; of a recorded call always true. Waits for their size; call it once."""
        if self.reading is None:
            return True
        numbers = self.reading.result()
        learn(self.kind, self.layout.rows, numbers)
        return self.room.holds(numbers)


def _recording(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


class _Rasterize(torch.autograd.Function):
    """The memory of lists is not a saved tensor, so that a backward pass can give it back when it has read them, before
    it makes the gradients. A second one through the same pictures (``retain_graph``) draws them again.
    """

    @staticmethod
    def forward(ctx, means, quats, scales, opacities, sh, background, call):
        pictures = call.enqueue(means, quats, scales, opacities, sh, background, True)
        ctx.save_for_backward(means, quats, scales, opacities, sh, background, call.view, call.intrinsics, call.alpha)
        # One of them may be a picture, which would hold its own history.
        call.view = call.intrinsics = call.alpha = None
        ctx.call = call
        ctx.set_materialize_grads(False)
        return pictures

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rgb, grad_alpha, grad_depth):
        means, quats, scales, opacities, sh, background, view, intrinsics, alpha = ctx.saved_tensors
        call = ctx.call
        layout = call.layout
        pixels = (layout.cameras, layout.height, layout.width)
        grad_rgb = means.new_zeros(*pixels, 3) if grad_rgb is None else _plain(grad_rgb)
        grad_alpha = means.new_zeros(pixels) if grad_alpha is None else _plain(grad_alpha)
        if grad_depth is not None:
            grad_depth = _plain(grad_depth)
        wanted = ctx.needs_input_grad
        gradients: tuple[Tensor | None, ...] = (None,) * 5
        grad_background = None
        with torch.cuda.device_of(means):
            if call.kept is None:
                call = _Call(view, intrinsics, layout, call.shape, call.spare, means.device)
                call.enqueue(means, quats, scales, opacities, sh, background, True)
                while not call.fits():
                    call.enqueue(means, quats, scales, opacities, sh, background, True)
                alpha = call.alpha
            kept, call.kept = call.kept, None
            if wanted[5]:
                through = (1 - alpha.view(*pixels, 1)).add_(kept.rest.tensor().view(*pixels, 1), alpha=2.0**-32)
                grad_background = (grad_rgb.view(*pixels, 3) * through).sum((1, 2)).reshape(background.shape)
            if wanted[0] or wanted[1] or wanted[2] or wanted[3] or wanted[4]:
                moments = blend_gradient(kept, sh, background, alpha, grad_rgb, grad_alpha, grad_depth, layout)
                records = kept.records if layout.k > 1 else None
                del kept  # without higher degrees of SH, the gradients may take its place
                gradients = project_gradient(
                    means, quats, scales, opacities, sh, view, intrinsics, records, moments, layout
                )
            if call.need is not None:
                for gradient in (*gradients, grad_background):
                    if gradient is not None:
                        gradient += call.need.poison
        return *gradients, grad_background, None


_apply = super(torch.autograd.Function, _Rasterize).apply  # without what Function adds, which looks at every argument


def _plain(tensor: Tensor) -> Tensor:
    """float32, contiguous, aligned; in the common case the same tensor."""
    if tensor.dtype is torch.float32 and tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return aligned(tensor.float().contiguous())


def _steps(tensor: Tensor, scenes: int, views: int, tail: tuple[int, ...]) -> tuple[Tensor, int, int]:
    """Cameras' numbers ([*scenes, V, *tail] or [V, *tail], float32) so that the last dimensions lie together, and the elements
    from one scene and from one view to the next."""
    if tensor.dtype is not torch.float32:
        tensor = tensor.float()
    inner = len(tail)
    strides = tensor.stride()
    if strides[-inner:] != (4, 1)[-inner:] or len(strides) > inner + 2 or tensor.data_ptr() % ALIGNMENT:
        tensor = tensor.contiguous()
        if len(strides) > inner + 2:
            tensor = tensor.reshape(scenes, views, *tail)
        tensor = aligned(tensor)
        strides = tensor.stride()
    return tensor, strides[0] if len(strides) > inner + 1 else 0, strides[-inner - 1]


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
    spare: float = SPARE_RECORDED,
) -> tuple[Tensor, Tensor, Tensor, RecordedNeed | None]:
    """Render scenes of any batch shape, all from V views.

    Args:
        means [*scenes, N, 3], quats [*scenes, N, 4], scales [*scenes, N, 3], opacities [*scenes, N], sh [*scenes, N, K, 3].
        view: [*scenes, V, 4, 4] or, for all scenes, [V, 4, 4]; intrinsics alike, [..., 4].
        background: one colour, or a tensor that broadcasts to [*scenes, V, 3].
        poses: what ``view`` and ``intrinsics`` hold: see :class:`.triton_project.Layout`.
        spare: times what earlier calls needed, the room of a call that is recorded in a CUDA graph.

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
    s = prod(scenes)
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
    layout = layout_of(
        s, views, n, k, height, width, max(float(near), 0.0), float(far), poses,
        view_scene, view_step, lens_scene, lens_step,
    )  # fmt: skip
    tensors = [_plain(t) for t in (means, quats, scales, opacities, sh, background)]
    history = torch.is_grad_enabled() and (
        means.requires_grad or quats.requires_grad or scales.requires_grad or opacities.requires_grad
        or sh.requires_grad or background.requires_grad
    )  # fmt: skip
    with torch.cuda.device_of(means):
        while True:
            call = _Call(view, intrinsics, layout, shape, spare, means.device)
            if not history:
                pictures = call.enqueue(*tensors, False)
            elif torch._C._are_functorch_transforms_active():
                pictures = _Rasterize.apply(*tensors, call)  # which says that it cannot be transformed
            else:
                pictures = _apply(*tensors, call)
            if call.fits():
                return *pictures, call.need
            del pictures, call  # their memory


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
