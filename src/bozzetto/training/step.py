"""One step of training, in two ways: call by call, or as two recordings that the host only starts.

A step of small networks is thousands of launches, and the host that makes them is slower than the device that runs them.
:class:`RecordedStep` records the loss with its backward pass as one CUDA graph, and clipping, optimiser and moving average as
another. Between the two, several processes exchange all gradients as one vector. What changes from step to step (the batch,
the learning rate, the progress of the run) lies in tensors that the recordings read. The next batch is fetched, and rendered,
on a stream of its own beside the step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import BozzettoError
from .graphed import graph_network, leave_recording
from .static import CastWeights, FlatGradients, StaticBatch
from .update import Update

Numbers = dict[str, Tensor]
WARM = 3  # steps before a recording: kernels are compiled and chosen, and the rasterizer sees how much it needs
ALIKE = 0.05  # difference of recorded and eager gradients (of their norm), above which a recording is not trusted
TIGHT = 0.9  # share of a recorded rasterizer's room, above which it is recorded anew


class PlainStep:
    """Every operation launched by the host; with several processes through :class:`~torch.nn.parallel.DistributedDataParallel`.

    Args:
        recipe: gives the loss. model: what it is called with. update: of its parameters.
        precision: arithmetic of autocast, None for float32.
        parts: of a step's batch that this process takes.
    """

    def __init__(
        self, recipe: Any, model: nn.Module, update: Update, precision: torch.dtype | None, parts: int, world: int
    ) -> None:
        self.recipe, self.update, self.parts = recipe, update, parts
        device = next(model.parameters()).device
        self.amp = torch.autocast(device.type, precision or torch.bfloat16, enabled=precision is not None)
        self.model = model
        if world > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.model = nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def __call__(
        self, batches: Iterable[Any], rate: float, average: float, progress: float
    ) -> tuple[list[Numbers], Tensor]:
        """Make a step of all ``batches``, one for each part.

        Args:
            rate: learning rate. average: share of the old weights in the moving average. progress: of the run, 0..1.

        Returns:
            The named numbers of each part, and the norm of the gradients.
        """
        for group in self.update.optimizer.param_groups:
            group["lr"] = rate
        told = []
        for i, batch in enumerate(batches):
            alone = self.model is not getattr(self.model, "module", self.model) and i < self.parts - 1
            with self.model.no_sync() if alone else contextlib.nullcontext():  # only the sum is exchanged
                with self.amp:
                    loss, numbers = self.recipe.loss(self.model, batch, progress)
                (loss / self.parts).backward()
            told.append({**numbers, "loss": loss})
        return told, self.update(average)


class RecordedStep:
    """The same step on static tensors, recorded where that is possible; for one part a process.

    A failed recording is no error: :attr:`recorded` says what was recorded and :attr:`reasons` why something was not.

    Args:
        batch: of the stream, as all later ones in shape.
        record: False leaves all launches to the host (on a CPU it always does).
        Others: see :class:`PlainStep`.
    """

    parts = 1

    def __init__(
        self,
        recipe: Any,
        model: nn.Module,
        update: Update,
        precision: torch.dtype | None,
        batch: Any,
        world: int = 1,
        record: bool = True,
    ) -> None:
        self.recipe, self.model, self.update, self.world = recipe, model, update, world
        self.precision = precision
        self.device = next(model.parameters()).device
        self.gradients = FlatGradients(list(model.parameters()))
        if world > 1:
            self._start_alike()
        self.cast = CastWeights(model, precision) if precision else None
        self.batch = StaticBatch(batch)
        self._side = torch.cuda.Stream() if record and self.device.type == "cuda" else None
        self.rate, self.average, self.progress = (torch.zeros((), device=self.device) for _ in range(3))
        self.numbers: Numbers = {}
        self.norm = self.rate
        self.recorded: list[str] = []
        self.reasons: list[str] = []
        self._passes_graph: torch.cuda.CUDAGraph | None = None
        self._update_graph: torch.cuda.CUDAGraph | None = None
        self._needs: list[Any] = []  # of the rasterizer's recorded calls
        if record and self.device.type == "cuda":
            self._most = torch.zeros(8, 2, dtype=torch.int64, device=self.device)  # that these calls ever needed
            self._told = torch.zeros(8, 2, dtype=torch.int64, pin_memory=True)
            self._event = torch.cuda.Event()
            self._asked = False
            if not self._attempt("loss and gradients", self._record_passes_checked):
                self._passes_graph, self._needs, self.cast = None, [], None
                if graph_network(model, recipe.model_inputs(self.batch.value), precision):
                    self.recorded.append("network")
            self._attempt("update", self._record_update)

    @torch.no_grad()
    def _start_alike(self) -> None:
        """The first process's weights for all."""
        self.gradients.take(self.gradients.parameters)
        dist.broadcast(self.gradients.vector, 0)
        torch._foreach_copy_(self.gradients.parameters, self.gradients.views)
        for buffer in self.model.buffers():
            dist.broadcast(buffer, 0)

    # ---- what is recorded --------------------------------------------------------------------------------------------

    def _passes(self) -> None:
        """Loss and gradients of the static batch."""
        # Recordings and autocast's cache of cast weights exclude each other: the casts are part of the recording.
        amp = (
            torch.autocast(self.device.type, self.precision, cache_enabled=False)
            if self.precision
            else contextlib.nullcontext()
        )
        with amp, self.cast.in_place() if self.cast else contextlib.nullcontext():
            loss, numbers = self.recipe.loss(self.model, self.batch.value, self.progress)
        leaves = [self.cast.leaf(p) if self.cast else p for p in self.gradients.parameters]
        self.gradients.take(torch.autograd.grad(loss / self.world, leaves, allow_unused=True))
        self.numbers = {k: v.detach() for k, v in numbers.items()} | {"loss": loss.detach()}

    def _finish(self) -> None:
        """Everything after the exchange of the gradients."""
        self.norm = self.update(self.average, self.gradients.vector)

    # ---- recording ---------------------------------------------------------------------------------------------------

    def _attempt(self, name: str, record: Callable[[], None]) -> bool:
        try:
            record()
        except (RuntimeError, BozzettoError) as error:
            self.reasons.append(f"{name} not recorded: {type(error).__name__}: {str(error).splitlines()[0]}")
            with contextlib.suppress(RuntimeError):
                torch.cuda.synchronize()
            leave_recording(self.device)
            return False
        self.recorded.append(name)
        return True

    def _aside(self, call: Callable[[], None], times: int) -> None:
        """Run it on another stream, as recordings do."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(times):
                call()
        torch.cuda.current_stream().wait_stream(stream)

    def _record_passes(self, warm: int) -> None:
        from ..raster.triton_room import recorded_needs

        self._passes_graph, self._needs, self.numbers = None, [], {}  # gives the memory of an earlier recording back
        self._aside(self._passes, warm)
        graph = torch.cuda.CUDAGraph()
        # Other threads fetch and pin the next batch meanwhile.
        with recorded_needs() as needs, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._passes()
            for most, need in zip(self._most, needs):
                torch.maximum(most, need.needed[:2], out=most)
        self._most.zero_()
        self._passes_graph, self._needs = graph, needs[: len(self._most)]

    def _record_passes_checked(self) -> None:
        """And compare with the same operations launched one by one."""
        self._record_passes(WARM)
        recorded = self.numbers
        self._passes()
        wanted, loss = self.gradients.vector.clone(), self.numbers["loss"].clone()
        self.gradients.vector.zero_()
        self._passes_graph.replay()
        self.numbers = recorded
        size, apart = float(wanted.norm()), float((self.gradients.vector - wanted).norm())
        if not apart <= ALIKE * size:
            raise RuntimeError(
                f"recorded and eager gradients differ by {apart:.3g} of {size:.3g} (loss {float(recorded['loss']):.5g} and "
                f"{float(loss):.5g})"
            )

    def _record_update(self) -> None:
        groups = self.update.optimizer.param_groups
        before = [{k: g.get(k) for k in ("lr", "capturable")} for g in groups]
        skipped, gradients = self.update.skipped.clone(), self.gradients.vector.clone()
        # Gradients that are no numbers leave weights and moments as they are, and so does an average of all old weights.
        self.rate.zero_()
        self.average.fill_(1.0)
        self.gradients.vector.fill_(float("nan"))
        try:
            for group in groups:
                group["lr"] = self.rate
            self._aside(self._finish, 2)
            for group in groups:
                group["capturable"] = True  # without which PyTorch's optimisers refuse to be recorded
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._finish()
        finally:
            for group, old in zip(groups, before):
                group.update({k: v for k, v in old.items() if v is not None})
                if old["capturable"] is None:
                    group.pop("capturable", None)
            self.update.skipped.copy_(skipped)
            self.gradients.vector.copy_(gradients)
        self._update_graph = graph

    # ---- a step ------------------------------------------------------------------------------------------------------

    def __call__(
        self, batches: Iterable[Any], rate: float, average: float, progress: float
    ) -> tuple[list[Numbers], Tensor]:
        """As :meth:`PlainStep.__call__`; the next step overwrites the numbers."""
        self._take(batches)
        for number, value in ((self.rate, rate), (self.average, average), (self.progress, progress)):
            number.fill_(value)
        if self._passes_graph is None:
            self._passes()
        else:
            self._passes_graph.replay()
            self._make_room()
        if self.world > 1:
            dist.all_reduce(self.gradients.vector)
        for group in self.update.optimizer.param_groups:
            group["lr"] = rate
        if self._update_graph is None:
            self._finish()
        else:
            self._update_graph.replay()
        return [self.numbers], self.norm

    def _take(self, batches: Iterable[Any]) -> None:
        """Fetch the batch beside the last step, whose launches are all made by now, and copy it when that step is over."""
        if self._side is None:
            (batch,) = batches
            self.batch.take(batch)
            return
        here = torch.cuda.current_stream()
        with torch.cuda.stream(self._side):
            (batch,) = batches
        here.wait_stream(self._side)
        self.batch.take(batch)
        self._side.wait_stream(here)  # before it may use the batch's memory for the next one

    def _make_room(self) -> None:
        """Record the passes anew if a replay needed nearly all of the rasterizer's room, or more (its gradients are NaN then,
        and the update is left out). The numbers come from some steps ago: the host does not wait for them.
        """
        if not self._needs:
            return
        if not self._asked:
            self._told.copy_(self._most, non_blocking=True)
            self._event.record()
            self._asked = True
            return
        if not self._event.query():
            return
        self._asked = False
        tight = [
            (need, tuple(needed))
            for need, needed in zip(self._needs, self._told.tolist())
            if needed[0] > TIGHT * need.room.pairs or needed[1] > TIGHT * need.room.entries
        ]
        if not tight:
            return
        from ..raster.triton_room import learn

        for need, needed in tight:
            learn(need.kind, need.rows, needed)
        try:
            self._record_passes(1)
            self._passes_graph.replay()
        except RuntimeError as error:
            self.reasons.append(f"not recorded again: {str(error).splitlines()[0]}")
            leave_recording(self.device)
            self._passes_graph, self._needs = None, []
            self._passes()
