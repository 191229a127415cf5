"""The ways to make a training step that train_step.py compares: the training loop's own, and the usual one."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from train_tasks import Batch, Big, Mini, checkpoint_activations, draw, draw_one_by_one

from bozzetto.gaussians import Gaussians
from bozzetto.raster import Rendering
from bozzetto.training.graphed import graph_network
from bozzetto.training.loop import TrainConfig, make_optimizer
from bozzetto.training.step import RecordedStep
from bozzetto.training.update import Update

CONFIG = TrainConfig(out="")
RATE = 1e-5


class Ours:
    """The training loop's way where a step is launched operation by operation, but for the network's."""

    search = True  # cuDNN tries its algorithms before it takes one

    def __init__(
        self,
        task: Mini | Big,
        device: torch.device,
        compiled: bool = False,
        checkpointed: bool = False,
        graph: bool = True,
        optimizer: str = "adamw",
    ) -> None:
        torch.manual_seed(0)
        self.task, self.device = task, device
        with device:
            self.model = task.build()
        if device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)
            torch.backends.cudnn.benchmark = self.search
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        if checkpointed:
            checkpoint_activations(self.model)
        if compiled:
            self.model.compile(dynamic=False)
        self.graph = device.type == "cuda" and graph and not compiled
        self.optimizer = make_optimizer(self.model, TrainConfig(out="", lr=RATE, optimizer=optimizer))
        self.update = Update(self.model, averaged, self.optimizer, CONFIG.clip)
        self.amp = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    def draw(self, gaussians: Gaussians, batch: Batch) -> Rendering:
        return draw(self.task, gaussians, batch)

    def record(self, inputs: tuple[Tensor, ...]) -> None:
        """At the first call, the network's launches as a graph."""
        if self.graph:
            self.graph = False
            print(f"recorded: {graph_network(self.model, inputs, torch.bfloat16)}", flush=True)

    def step(self, batch: Batch) -> None:
        self.loss(batch).backward()
        self.update(0.999)

    def advance(self, batches: Iterator[Batch]) -> None:
        """Make a step of the next batch."""
        self.step(next(batches))

    def loss(self, batch: Batch) -> Tensor:
        inputs = self.task.inputs(batch)
        self.record(inputs)
        with self.amp:
            raw = self.model(*inputs)
        gaussians = self.task.head(raw, batch)
        drawn = self.draw(gaussians, batch)
        with self.amp:
            return self.task.loss(raw, gaussians, drawn, batch)


class Whole(Ours):
    """The training loop's way."""

    def __init__(self, task: Mini | Big, device: torch.device, optimizer: str = "adamw") -> None:
        super().__init__(task, device, graph=False, optimizer=optimizer)
        self.recorded: RecordedStep | None = None

    def step(self, batch: Batch) -> None:
        if self.recorded is None:
            precision = torch.bfloat16 if self.device.type == "cuda" else None
            self.recorded = RecordedStep(AsRecipe(self.task), self.model, self.update, precision, batch)
            print("recorded:", ", ".join(self.recorded.recorded) or "nothing", *self.recorded.reasons, flush=True)
        self.recorded([batch], RATE, 0.999, 0.5)

    def advance(self, batches: Iterator[Batch]) -> None:
        if self.recorded is None:
            self.step(next(batches))
        else:
            self.recorded(itertools.islice(batches, 1), RATE, 0.999, 0.5)  # fetched beside the last step


class AsRecipe:
    """A task as the training loop wants it."""

    def __init__(self, task: Mini | Big) -> None:
        self.task = task

    def model_inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return self.task.inputs(batch)

    def loss(self, model: nn.Module, batch: Batch, progress: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        raw = model(*self.task.inputs(batch))
        with torch.autocast(raw.device.type, enabled=False):
            gaussians = self.task.head(raw, batch)
            drawn = draw(self.task, gaussians, batch)
        return self.task.loss(raw, gaussians, drawn, batch), {}


class Reference(Ours):
    """The usual way."""

    search = (
        False  # PyTorch's default; on channels-first maps of this size the search takes longer than the measurement
    )

    def __init__(self, task: Mini | Big, device: torch.device, gsplat: bool) -> None:
        super().__init__(task, device, graph=False)
        self.gsplat = gsplat
        self.model = self.model.to(memory_format=torch.contiguous_format)
        self.model.unet.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(), *inputs[1:]))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, betas=CONFIG.betas)
        del self.update

    def draw(self, gaussians: Gaussians, batch: Batch) -> Rendering:
        return draw_one_by_one(self.task, gaussians, batch, self.gsplat)

    def step(self, batch: Batch) -> None:
        with plain_layers():
            loss = self.loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CONFIG.clip)
            self.optimizer.step()


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """Without our kernels for layers and losses."""
    from bozzetto.nn import backend
    from bozzetto.training import picture_loss

    kept = backend.kernels, picture_loss.has_triton
    backend.kernels, picture_loss.has_triton = (lambda: None), (lambda: False)
    try:
        yield
    finally:
        backend.kernels, picture_loss.has_triton = kept
