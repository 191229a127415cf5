"""How lgm-mini is trained: procedural objects and those of dataset folders, one to four known views, eight rendered views.

Expected on held-out procedural objects: see the model card beside the bundled weights.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...camera import Cameras
from ...data.library import AssetLibrary, Mixture, parse_mix
from ...data.render import Lights, RenderedViews, SceneBatch, render_objects
from ...data.render.surroundings import load_light
from ...data.stream import ObjectStream
from ...errors import InputError
from ...raster import rasterize
from ...training.augment import augment_views
from .cameras import FRONT, KNOWN, PLACED, RING, SLOTS, STUDIO, ViewSet, sample_views
from .checkpoint import guess_preset
from .drawn import Drawn, draw_from
from .generated import check_object_number, make_packed_object
from .growth import grown
from .heads import ray_head
from .inputs import arguments_of
from .network import LGM
from .objective import Objective
from .presets import preset
from .reconstruct import resize_rgba
from .zoom import zoom, zoom_of

OUTPUTS = ("rgba", "depth")
AHEAD = 3  # batches whose objects are fetched and packed before they are asked for


@dataclass
class MiniRecipe:
    """Everything that decides what lgm-mini learns, apart from the optimiser.

    Attributes:
        batch_size: objects per step and process.
        novel_views: supervised views that the network has not seen (the four slots are supervised too).
        render_size: pixels of the supervision pictures; the network's input has the preset's size.
        ssim_weight, perceptual_weight: weights beside MSE on rgb and alpha.
        depth_weight: L1 on the distance along the ray where a slot's pixel shows the object; fades to a half.
        opacity_weight: mean of o (1 - o), against fog where the network cannot know; grows from 0 over the run.
        silhouette_weight: of the mean absolute error of alpha.
        several: share of the last three for objects of which several views are known.
        known, ring, studio, front, placed: shares of kinds of input views, see :func:`~.cameras.sample_views`.
        distortion_probability, jitter_probability: LGM's augmentations of all input views but the first, for networks that
            will be fed by a diffusion model; 0 for true pictures.
        data: dataset folders (``bozzetto data convert``), of which the training split is used; none: procedural objects only.
        mix: shares of sources, see :class:`~bozzetto.data.library.Mixture`; as text, "procedural=0.3,zeroad=0.2".
        licences: of ``data``, only objects that can be used under these alone ("clean" among them); None for all.
        recolour: share of the objects of ``data`` whose picture-less materials get another tint.
        environment: share of scenes lit by surroundings (skies, rooms) instead of a plain studio.
        photographed: file of ``bozzetto data light`` whose surroundings are used instead of this package's 26; None for those.
        decoded: folder in which the decoded objects of ``data`` are kept for later starts and other processes.
        overfit: of ``data``, only so many objects, at rest, over and over; 0 for all.
        block, repeats, workers, first_seed, shared: see :class:`~bozzetto.data.stream.ObjectStream`.
    """

    preset: str = "mini-sweep"
    batch_size: int = 16
    novel_views: int = 4
    render_size: int = 256
    ssim_weight: float = 0.1
    perceptual_weight: float = 0.0
    perceptual_weights_file: str | None = None
    depth_weight: float = 0.5
    opacity_weight: float = 0.0
    silhouette_weight: float = 0.0
    several: float = 1.0
    known: tuple[float, ...] = KNOWN
    ring: float = RING
    studio: float = STUDIO
    front: float = FRONT
    placed: float = PLACED
    distortion_probability: float = 0.0
    jitter_probability: float = 0.0
    block: int = 1024
    repeats: int = 2
    workers: int = 0
    texture_size: int = 128
    evaluation_objects: int = 32
    data: tuple[str, ...] = ()
    mix: str = ""
    licences: tuple[str, ...] | None = None
    recolour: float = 0.3
    environment: float = 0.0
    photographed: str | None = None
    decoded: str | None = None
    overfit: int = 0
    first_seed: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        check_object_number(self.first_seed)
        if len(self.known) != SLOTS or min(self.known) < 0 or sum(self.known) <= 0:
            raise InputError(f"known must be four shares of objects with 1, 2, 3 and 4 known views, got {self.known}")
        self.config = preset(self.preset)
        self.objective = Objective(
            self.ssim_weight,
            self.perceptual_weight,
            self.perceptual_weights_file,
            self.depth_weight,
            self.opacity_weight,
            self.silhouette_weight,
            self.several,
        )
        self._photographed = load_light(self.photographed) if self.photographed else None
        self._library: AssetLibrary | None = None
        self._mixture = Mixture.open(self.data, parse_mix(self.mix), self.licences) if self.data else None

    def library(self, device: torch.device) -> AssetLibrary | None:
        """The objects of ``data`` on ``device``, loaded at the first call."""
        if self._mixture is None or not len(self._mixture):
            return None
        if self._library is None:
            self._library = self._mixture.load(device, workers=self.workers, decoded=self.decoded)
        return self._library

    def build(self) -> nn.Module:
        model = LGM(self.config)
        with torch.no_grad():  # start close to the input pictures: small corrections, visible splats
            model.unet.conv_out.weight.mul_(0.4)
            model.unet.conv_out.bias.zero_()
            model.conv.weight[:, :, 0, 0] = torch.eye(14)
            model.conv.bias.zero_()
        return model

    def starting_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of this network, or of one that grows into it (``growth.py``), as weights of this one."""
        shapes = {k: tuple(v.shape) for k, v in weights.items()}
        with torch.device("meta"):
            own = {k: tuple(v.shape) for k, v in LGM(self.config).state_dict().items()}
        if shapes.keys() == own.keys() and shapes == own:
            return weights
        return grown({k: v.float() for k, v in weights.items()}, preset(guess_preset(shapes)), self.config)

    def describe(self) -> dict[str, Any]:
        about = {"system": "lgm", **asdict(self)}
        if self._mixture is not None:
            about["objects"] = len(self._mixture)
            about["shares"] = {"procedural": self._mixture.procedural, **self._mixture.shares}
        return about

    def identity(self) -> dict[str, Any]:
        """What decides the network and which objects a step sees."""
        out = {
            "preset": self.preset,
            "batch": self.batch_size,
            "block": self.block,
            "repeats": self.repeats,
            "first seed": self.first_seed,
            "texture size": self.texture_size,
            "shared": self.shared,
            "known": ",".join(f"{x:g}" for x in self.known),
            "ring": self.ring,
            "studio": self.studio,
            "front": self.front,
            "placed": self.placed,
        }
        # A run without data is the same as one from before there was any.
        return out if self._mixture is None else out | {"mix": self.mix, "data": self._mixture.digest}

    # ---- data ---------------------------------------------------------------------------------------------------------

    def batches(self, start: int, seed: int, rank: int, world: int, device: torch.device) -> Iterator[dict[str, Any]]:
        """Yield rendered batches; the next ones' objects are fetched and packed while a step runs."""
        library = self.library(device)
        generated = self.batch_size if library is None else self._mixture.procedural_count(self.batch_size)
        taken = self.batch_size - generated
        stream = ObjectStream(
            partial(make_packed_object, texture_size=self.texture_size),
            generated,
            seed=seed,
            rank=rank,
            world=world,
            first_seed=self.first_seed,
            block=self.block,
            repeats=self.repeats,
            workers=self.workers,
            shared=self.shared,
        )
        pin = device.type == "cuda"

        def generator_of(step: int, purpose: int) -> torch.Generator:
            number = ((seed * 1_000_003 + step) * 4099 + rank) * 2 + purpose
            return torch.Generator().manual_seed(number % 2**63)

        def prepare(step: int) -> tuple[SceneBatch | None, Drawn, ViewSet, Lights]:
            scene = SceneBatch.collate(stream.batch(step)) if generated else None
            generator = generator_of(step, 0)
            views = sample_views(
                self.batch_size,
                self.novel_views,
                generator,
                known=self.known,
                ring=self.ring,
                studio=self.studio,
                front=self.front,
                placed=self.placed,
                slots=self.config.slots,
            )
            if scene is not None:
                scene.vertices *= zoom(scene, views.rows(slice(taken, None)), generator)
            drawn = Drawn.none()
            if taken:
                known, key = views.rows(slice(0, taken)).known, [seed, step, rank]
                drawn = draw_from(self._mixture, library, known, key, generator, self.overfit, self.recolour)
            lights = Lights.random(
                self.batch_size,
                generator,
                glossy=0.25,
                environment=self.environment,
                photographed=self._photographed,
            )
            # From memory that is not page-locked, a copy to the device would make the host wait.
            out = (scene, drawn, views, lights)
            return tuple(x if x is None else x.pin_memory() for x in out) if pin else out

        ahead = ThreadPoolExecutor(1)
        try:
            pending = deque(ahead.submit(prepare, start + i) for i in range(AHEAD))
            for step in itertools.count(start):
                scene, drawn, views, lights = pending.popleft().result()
                pending.append(ahead.submit(prepare, step + AHEAD))
                yield self.augment(self.render(scene, drawn, views, lights, device), generator_of(step, 1))
        finally:
            ahead.shutdown(cancel_futures=True)
            stream.close()

    @torch.no_grad()
    def render(
        self, scene: SceneBatch | None, drawn: Drawn, views: ViewSet, lights: Lights, device: torch.device
    ) -> dict[str, Any]:
        """Pictures of a batch: input slots at the network's size, targets for all views at the supervision size.

        The library's objects come first, then the generated ones of ``scene``.
        """
        size = self.config.input_size
        count = len(drawn.poses)
        views, lights = views.to(device, non_blocking=True), lights.to(device, non_blocking=True)
        cameras = views.world()
        made: list[RenderedViews] = []
        if count:
            drawn = drawn.to(device, non_blocking=True)
            own = self.library(device).scene(drawn.poses, tints=drawn.tints)
            own.vertices = own.vertices * zoom_of(
                own, cameras[:count, :SLOTS], drawn.fill, drawn.photo, views.placed[:count]
            )
            made.append(render_objects(own, cameras[:count], size, lights.rows(slice(0, count)), outputs=OUTPUTS))
        if scene is not None:
            scene = scene.to(device, non_blocking=True)
            rest = slice(count, None)
            made.append(render_objects(scene, cameras[rest], size, lights.rows(rest), outputs=OUTPUTS))
        rgba, depth = (torch.cat([getattr(m, name) for m in made]) for name in OUTPUTS)
        rgba = rgba.permute(0, 1, 4, 2, 3)  # [B, slots + n, 4, S, S]
        slots, seen = views.slots, self.config.slots
        return {
            "rgba": rgba[:, :seen].contiguous(),
            "target": resize_rgba(rgba, self.render_size),
            "depth": depth[:, :seen],
            "slots": slots,
            "known": views.known,
            "cameras": Cameras.cat([slots, views.novel], dim=1),
        }

    def augment(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """LGM's distortion of the input pictures and jitter of their rays; what is supervised stays true."""
        batch["input_rgba"], batch["input_slots"] = batch["rgba"], batch["slots"]
        if self.distortion_probability or self.jitter_probability:
            rgba, poses = augment_views(
                batch["rgba"].cpu(),
                batch["slots"].camera_to_world.cpu(),
                distortion_probability=self.distortion_probability,
                jitter_probability=self.jitter_probability,
                generator=generator,
            )
            batch["input_rgba"] = rgba.to(batch["rgba"])
            batch["input_slots"] = Cameras(poses.to(batch["rgba"]), batch["slots"].intrinsics)
        return batch

    # ---- objective ----------------------------------------------------------------------------------------------------

    def model_inputs(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        return arguments_of(batch["input_rgba"], batch["input_slots"], batch["known"], self.config)

    def loss(self, model: nn.Module, batch: dict[str, Any], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        raw = model(*self.model_inputs(batch))
        with torch.autocast(raw.device.type, enabled=False):
            gaussians = ray_head(raw, batch["slots"], batch["input_rgba"], batch["known"])
            drawn = rasterize(gaussians, batch["cameras"], self.render_size)
        return self.objective(raw, gaussians, drawn, batch, progress)

    # ---- reports ------------------------------------------------------------------------------------------------------

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Novel-view PSNR on held-out objects from one and from four views (see ``evaluation.py`` of this folder)."""
        from .evaluation import evaluate_procedural

        return evaluate_procedural(model, device, objects=self.evaluation_objects).numbers

    def sample_picture(self, model: nn.Module, device: torch.device) -> Tensor:
        """Rows of held-out objects: the input, then truth and prediction from four new sides."""
        from .evaluation import evaluate_procedural

        return evaluate_procedural(model, device, objects=8, sheet_rows=8).sheet
