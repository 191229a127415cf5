"""The one training loop. A system plugs in through a :class:`Recipe`; the loop knows nothing of Gaussians.

One process per GPU (``torchrun``) or a single one on any device. The batch of a step has one or more *parts*, each with its
own stream of data, which the processes share out evenly; who has several takes them one after the other and adds up their
gradients. Everything random is drawn from a generator seeded by (seed, step, part), so a run that was killed and resumed makes
the very same steps as one that was not, on any number of processes that divides that of the parts.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..device import pick_device
from ..errors import InputError
from .agree import Agreement
from .checkpoint import latest_checkpoint, load_training_state, save_training_state, saved_parts, saved_seconds
from .log import RunLog
from .muon import Muon
from .step import PlainStep, RecordedStep
from .update import Update

TOGETHER = (
    10  # steps between the moments at which several processes ask each other whether to stop, and hear it ten later
)
PATIENCE = timedelta(minutes=60)  # for other processes: they wait while the first one evaluates


@dataclass
class TrainConfig:
    """How to optimise; what is optimised is the recipe's business."""

    out: str
    steps: int = 10_000
    minutes: float | None = (
        None  # plan by time instead: the rate falls over these minutes, then the run ends, whatever the step
    )
    lr: float = 2e-4
    final_lr: float = 1e-6
    optimizer: str = "adamw"  # or "muon" (muon.py)
    warmup: int = 500  # steps
    weight_decay: float = 0.05  # on matrices and kernels only
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0  # global gradient norm
    ema: float = 0.999
    precision: str = "bf16"  # or "fp32"
    compile: bool = False  # torch.compile: pays off from a few minutes on
    graph: bool = True  # on CUDA, record a step's launches (unless compiled, or a process has several parts)
    seed: int = 0
    parts: int | None = None  # of a step's batch; None: as many as processes, or what a resumed run began with
    log_every: int = 50
    sample_every: int = 1000  # 0: none
    eval_every: int = 0  # 0: only at the end
    checkpoint_every: int = 500
    max_minutes: float | None = None  # stop cleanly, with a checkpoint, after this time
    init_from: str | None = None  # weights to start from (a training checkpoint or .safetensors); ignored when resuming
    quiet: bool = False  # no lines on standard output

    def check(self) -> None:
        """Raise :class:`InputError` for values that cannot be meant."""
        if self.precision not in ("bf16", "fp32"):
            raise InputError(f"precision must be bf16 or fp32, got {self.precision!r}")
        if self.optimizer not in ("adamw", "muon"):
            raise InputError(f"optimizer must be adamw or muon, got {self.optimizer!r}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be from 0 to 2**63 - 1, got {self.seed}")
        for name, least in (("lr", None), ("clip", None), ("final_lr", 0), ("weight_decay", 0)):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (least is None and value == 0):
                wanted = "above 0" if least is None else "of at least 0"
                raise InputError(f"{name} must be a finite number {wanted}, got {value}")
        counts = (("steps", 1), ("warmup", 0), ("log_every", 1), ("checkpoint_every", 1), ("parts", 1))
        for name, least in counts:
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("minutes", "max_minutes"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")


class Recipe(Protocol):
    """What a system gives the loop."""

    def build(self) -> nn.Module: ...

    def batches(self, start: int, seed: int, part: int, parts: int, device: torch.device) -> Iterator[Any]:
        """One part of the batches of steps ``start``, ``start + 1``, ...: each a pure function of (seed, step, part, parts)."""
        ...

    def loss(self, model: nn.Module, batch: Any, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over ``batch``, and named numbers to log."""
        ...

    def model_inputs(self, batch: Any) -> tuple[Tensor, ...]:
        """What ``loss`` calls the model with, once; every batch's have the same shapes."""
        ...

    def sample_picture(self, model: nn.Module, device: torch.device) -> Tensor | None: ...

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]: ...

    def describe(self) -> dict[str, Any]: ...

    def identity(self) -> dict[str, Any]:
        """What must not change when a run is resumed (numbers and names only), under the names that a user knows."""
        ...


def learning_rate(config: TrainConfig, step: int, elapsed: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to ``final_lr`` at the last step (or minute: ``elapsed`` seconds are over)."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.minutes is not None:
        progress = elapsed / (60 * config.minutes)
    else:
        progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices and kernels, none for biases and norms."""
    decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """What ``config`` asks for. Muon leaves the layers that the model names in ``edge_layers`` to AdamW."""
    if config.optimizer == "muon":
        edges = getattr(model, "edge_layers", ())
        return Muon(model, edges, lr=config.lr, weight_decay=config.weight_decay, betas=config.betas)
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


class _StopFlag:
    """Ctrl-C or SIGTERM asks the loop to finish its step, write a checkpoint and stop; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _StopFlag:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread
                self._old[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(self, *exc: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)


def _distributed(device: str) -> tuple[int, int, torch.device]:
    """(rank, world size, device); joins torchrun's process group if there is one."""
    if ":" in device:
        raise InputError(f"device must be auto, cpu or cuda, got {device!r}; CUDA_VISIBLE_DEVICES picks among GPUs")
    use_cuda = pick_device(device).type == "cuda"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if use_cuda:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InputError(f"one process per GPU: this is process {local + 1} of {torch.cuda.device_count()} GPUs")
        target = torch.device("cuda", local)
        torch.cuda.set_device(target)
    else:
        target = torch.device("cpu")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if use_cuda else "gloo", timeout=PATIENCE)
    return rank, world, target


def _same_start(start: int, world: int, device: torch.device, out: Path) -> None:
    """Refuse to go on unless all processes resume from one step."""
    if world == 1:
        return
    starts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    dist.all_gather(starts, torch.tensor([start], device=device))
    steps = [int(s) for s in starts]
    if len(set(steps)) > 1:
        raise InputError(
            f"the processes find checkpoints of different steps in {out} ({', '.join(map(str, steps))}): "
            "the folder must be one that all machines share"
        )


def _own_parts(parts: int | None, saved: int | None, rank: int, world: int) -> tuple[int, list[int]]:
    """How many parts a step has, and which of them this process takes."""
    parts = parts or saved or world
    if parts % world:
        raise InputError(
            f"{parts} parts of a batch cannot be shared out evenly among {world} processes; start as many processes as "
            "divide the parts (--parts of the first start, by default the processes there were)"
        )
    return parts, list(range(rank, parts, world))


def _mean_numbers(numbers: list[dict[str, Tensor]], world: int) -> dict[str, float]:
    """The mean of every named number over all parts of a step; all processes must call this together."""
    names = list(numbers[0])
    values = torch.stack([torch.stack([n[k].detach().float() for k in names]) for n in numbers]).mean(0)
    if world > 1:
        dist.all_reduce(values)
        values /= world
    return dict(zip(names, values.tolist()))


def train(recipe: Recipe, config: TrainConfig, device: str = "auto") -> dict[str, float]:
    """Run (or resume) a training run in ``config.out``; returns the last evaluation's numbers.

    Files: ``checkpoint-*.pt`` (everything needed to resume), ``log.csv``, ``samples/*.png``, ``run.json``; TensorBoard
    events where the package is installed. Rank 0 writes.
    """
    config.check()
    rank, world, target = _distributed(device)
    out = Path(config.out)
    torch.manual_seed(config.seed)
    model = recipe.build().to(target)
    if target.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = make_optimizer(model, config)
    resume = latest_checkpoint(out)
    parts, own = _own_parts(config.parts, None if resume is None else saved_parts(resume), rank, world)
    before = 0.0  # seconds of the run's earlier starts
    start, identity = 0, {"seed": config.seed, "parts": parts, "optimizer": config.optimizer, **recipe.identity()}
    if resume is not None:
        start = load_training_state(resume, model, ema, optimizer, identity)
        before = saved_seconds(resume)
        if config.init_from and rank == 0 and not config.quiet:
            print(
                f"{out} goes on from {resume.name}; {config.init_from} is for a new folder and is left aside",
                flush=True,
            )
    elif config.init_from:
        load_training_state(Path(config.init_from), model, ema, None, adapt=getattr(recipe, "starting_weights", None))
    _same_start(start, world, target, out)
    over = start >= config.steps if config.minutes is None else before >= 60 * config.minutes
    if over and rank == 0 and not config.quiet:
        goal = f"{start:,} steps" if config.minutes is None else f"{config.minutes:g} minutes"
        print(f"{out} has {start:,} steps and is finished; it goes on with more than {goal}", flush=True)
    if config.compile:
        model.compile(dynamic=False)
    streams = [recipe.batches(start, config.seed, part, parts, target) for part in own]
    taken: list[list[Any]] = [[] for _ in streams]
    update = Update(model, ema, optimizer, config.clip)
    precision = torch.bfloat16 if config.precision == "bf16" else None
    make_step: PlainStep | RecordedStep
    if config.graph and target.type == "cuda" and not config.compile and len(own) == 1 and not over:
        taken[0].append(next(streams[0]))
        make_step = RecordedStep(recipe, model, update, precision, taken[0][0], world)
        if rank == 0 and not config.quiet:
            print(
                "\n".join([f"recorded: {', '.join(make_step.recorded) or 'nothing'}", *make_step.reasons]), flush=True
            )
    else:
        make_step = PlainStep(recipe, model, update, precision, len(own), world)
    log = RunLog(out, enabled=rank == 0, start=start, echo=not config.quiet)
    log.describe(
        {
            "train": asdict(config),
            "recipe": recipe.describe(),
            "world": world,
            "device": str(target),
            "recorded": getattr(make_step, "recorded", []),
        }
    )
    agree = Agreement(world, target, before)
    began = time.monotonic()
    results: dict[str, float] | None = None
    step, stop, elapsed = start, over, before

    def save() -> None:
        if rank == 0:
            about = {**recipe.describe(), "seconds": before + time.monotonic() - began}
            save_training_state(out, step, model, ema, optimizer, about, identity)

    with _StopFlag() as stopping:
        try:
            while not stop:
                rate = learning_rate(config, step, elapsed)
                share = step / config.steps if config.minutes is None else min(elapsed / (60 * config.minutes), 1.0)
                batches = (taken[i].pop() if taken[i] else next(stream) for i, stream in enumerate(streams))
                average = min(config.ema, (1 + step) / (10 + step))
                told, norm = make_step(batches, rate, average, share)  # one bad batch does not end a run
                step += 1
                if step % config.log_every == 0 or step == start + 1:
                    numbers = _mean_numbers(told, world)
                    numbers |= {"grad_norm": float(norm), "lr": rate}
                    numbers |= {"skipped": int(update.skipped), "seconds": time.monotonic() - began}
                    log.write(step, numbers)
                if rank == 0 and config.sample_every and step % config.sample_every == 0:
                    log.picture(step, recipe.sample_picture(ema, target))
                if rank == 0 and config.eval_every and step % config.eval_every == 0 and step != config.steps:
                    log.evaluation(step, recipe.evaluate(ema, target))
                if world == 1 or step % TOGETHER == 0:
                    took = time.monotonic() - began
                    late = config.max_minutes is not None and took > 60 * config.max_minutes
                    late |= config.minutes is not None and before + took > 60 * config.minutes
                    stop, elapsed = agree(late or stopping.requested, before + took)
                stop |= config.minutes is None and step >= config.steps
                if step % config.checkpoint_every == 0 and not stop:
                    save()
        finally:
            for stream in streams:
                if hasattr(stream, "close"):
                    stream.close()
    if resume is None or step > start:
        save()
    if rank == 0:
        results = log.evaluated(step)
        if results is None:
            results = recipe.evaluate(ema, target)
            log.evaluation(step, results)
            if config.sample_every:
                log.picture(step, recipe.sample_picture(ema, target))
    log.close()
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    return results or {}
