"""How lgm-mini is trained: procedural objects, one to four known views, supervision from eight rendered views.

Expected on held-out procedural objects: see the model card beside the bundled weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...camera import Cameras
from ...data.render import Lights, PackedObject, SceneBatch, render_objects
from ...data.stream import ObjectStream
from ...errors import InputError
from ...gaussians import Gaussians
from ...raster import Rendering, rasterize
from ...training.augment import augment_views
from ...training.picture_loss import picture_terms
from .cameras import SLOTS, ViewSet, sample_views
from .heads import ray_depth, ray_head
from .inputs import mini_inputs
from .network import LGM
from .presets import preset
from .reconstruct import resize_rgba

PERCEPTUAL_VIEWS = 2  # of the novel views of each object; it costs as much as the splatting
MAX_RADIUS = 0.85  # of an object after zooming, world units: within the depth range of the ray head


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
        distortion_probability, jitter_probability: LGM's augmentations of all input views but the first, for networks that
            will be fed by a diffusion model; 0 for true pictures.
        block, repeats, workers, first_seed, shared: see :class:`~bozzetto.data.stream.ObjectStream`.
    """

    preset: str = "mini"
    batch_size: int = 16
    novel_views: int = 4
    render_size: int = 256
    ssim_weight: float = 0.1
    perceptual_weight: float = 0.0
    perceptual_weights_file: str | None = None
    depth_weight: float = 0.5
    opacity_weight: float = 0.0
    distortion_probability: float = 0.0
    jitter_probability: float = 0.0
    block: int = 1024
    repeats: int = 2
    workers: int = 0
    texture_size: int = 128
    evaluation_objects: int = 32
    first_seed: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        check_object_number(self.first_seed)
        self.config = preset(self.preset)
        self._perceptual: nn.Module | None = None

    def build(self) -> nn.Module:
        model = LGM(self.config)
        with torch.no_grad():  # start close to the input pictures: small corrections, visible splats
            model.unet.conv_out.weight.mul_(0.4)
            model.unet.conv_out.bias.zero_()
            model.conv.weight.copy_(torch.eye(14)[:, :, None, None])
            model.conv.bias.zero_()
        return model

    def describe(self) -> dict[str, Any]:
        return {"system": "lgm", **asdict(self)}

    def identity(self) -> dict[str, Any]:
        """What decides the network and which objects a step sees."""
        return {
            "preset": self.preset,
            "batch": self.batch_size,
            "block": self.block,
            "repeats": self.repeats,
            "first seed": self.first_seed,
            "texture size": self.texture_size,
            "shared": self.shared,
        }

    # ---- data ---------------------------------------------------------------------------------------------------------

    def batches(self, start: int, seed: int, rank: int, world: int, device: torch.device) -> Iterator[dict[str, Any]]:
        """Yield rendered batches; the next one's objects are fetched and packed while a step runs."""
        stream = ObjectStream(
            partial(make_packed_object, texture_size=self.texture_size),
            self.batch_size,
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

        def prepare(step: int) -> tuple[SceneBatch, ViewSet, Lights]:
            scene = SceneBatch.collate(stream.batch(step))
            generator = generator_of(step, 0)
            views = sample_views(self.batch_size, self.novel_views, generator)
            scene.vertices *= zoom(scene, views, generator)
            lights = Lights.random(self.batch_size, generator, glossy=0.25)
            # From memory that is not page-locked, a copy to the device would make the host wait.
            return tuple(x.pin_memory() for x in (scene, views, lights)) if pin else (scene, views, lights)

        try:
            with ThreadPoolExecutor(1) as ahead:
                pending = ahead.submit(prepare, start)
                step = start
                while True:
                    scene, views, lights = pending.result()
                    step += 1
                    pending = ahead.submit(prepare, step)
                    yield self.augment(self.render(scene, views, lights, device), generator_of(step - 1, 1))
        finally:
            stream.close()

    @torch.no_grad()
    def render(self, scene: SceneBatch, views: ViewSet, lights: Lights, device: torch.device) -> dict[str, Any]:
        """Pictures of a batch: input slots at the network's size, targets for all views at the supervision size."""
        size = self.config.input_size
        scene, views, lights = (x.to(device, non_blocking=True) for x in (scene, views, lights))
        drawn = render_objects(scene, views.world(), size, lights, outputs=("rgba", "depth"))
        rgba = drawn.rgba.permute(0, 1, 4, 2, 3)  # [B, 4 + n, 4, S, S]
        slots = views.slots
        return {
            "rgba": rgba[:, :SLOTS].contiguous(),
            "target": resize_rgba(rgba, self.render_size),
            "depth": drawn.depth[:, :SLOTS],
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

    def model_inputs(self, batch: dict[str, Any]) -> tuple[Tensor]:
        return (mini_inputs(batch["input_rgba"], batch["input_slots"], batch["known"], self.config.input_size),)

    def loss(self, model: nn.Module, batch: dict[str, Any], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        raw = model(*self.model_inputs(batch))
        with torch.autocast(raw.device.type, enabled=False):
            gaussians = ray_head(raw, batch["slots"], batch["input_rgba"], batch["known"])
            drawn = rasterize(gaussians, batch["cameras"], self.render_size)
        return self.objective(raw, gaussians, drawn, batch, progress)

    def objective(
        self, raw: Tensor, gaussians: Gaussians, drawn: Rendering, batch: dict[str, Any], progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and its terms, of what the network gave and what was drawn from it (on black)."""
        target = batch["target"]  # [B, n, 4, H, W] straight
        with torch.autocast(raw.device.type, enabled=False):
            terms = picture_terms(drawn.rgb.flatten(0, 1), drawn.alpha.flatten(0, 1), target.flatten(0, 1))
            parts = {"mse": terms.white, "mse_black": terms.black, "alpha": terms.alpha}
            total = 0.5 * (terms.white + terms.black) + terms.alpha
            if self.ssim_weight:
                parts["ssim"] = terms.ssim
                total = total + self.ssim_weight * (1 - terms.ssim)
            if self.depth_weight:
                parts["depth"] = depth_error(raw, batch)
                total = total + self.depth_weight * (1 - 0.5 * progress) * parts["depth"]
            if self.opacity_weight:
                parts["fog"] = (gaussians.opacities * (1 - gaussians.opacities)).mean()
                total = total + self.opacity_weight * progress * parts["fog"]
        if self.perceptual_weight:
            # On unseen views only, which are drawn at random: the slots need no further push towards detail.
            unseen = slice(SLOTS, SLOTS + PERCEPTUAL_VIEWS)
            goal = target[:, unseen].flatten(0, 1)
            picture = (drawn.rgb + 1 - drawn.alpha[..., None])[:, unseen].flatten(0, 1).permute(0, 3, 1, 2)
            parts["perceptual"] = self._perceptual_distance(picture, goal[:, :3] * goal[:, 3:] + 1 - goal[:, 3:])
            total = total + self.perceptual_weight * parts["perceptual"]
        parts["psnr"] = -10 * torch.log10(terms.white.detach().clamp_min(1e-10))
        return total, parts

    def _perceptual_distance(self, pictures: Tensor, goals: Tensor) -> Tensor:
        if self._perceptual is None:
            from ...training.perceptual import load_perceptual

            self._perceptual = load_perceptual("mobilenet_v2", self.perceptual_weights_file).to(pictures.device)
        return self._perceptual(pictures, goals).mean()

    # ---- reports ------------------------------------------------------------------------------------------------------

    def evaluate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Novel-view PSNR on held-out objects from one and from four views (see ``evaluation.py`` of this folder)."""
        from .evaluation import evaluate_procedural

        return evaluate_procedural(model, device, objects=self.evaluation_objects).numbers

    def sample_picture(self, model: nn.Module, device: torch.device) -> Tensor:
        """Rows of held-out objects: the input, then truth and prediction from four new sides."""
        from .evaluation import evaluate_procedural

        return evaluate_procedural(model, device, objects=8, sheet_rows=8).sheet


def depth_error(raw: Tensor, batch: dict[str, Any]) -> Tensor:
    """Mean |predicted - true| distance along the ray, world units, over the slot pixels that show the object."""
    slots, depth = batch["slots"], batch["depth"]  # depth [B, 4, S, S]: camera z
    size = raw.shape[-1]
    alpha = batch["rgba"][:, :, 3]
    step = depth.shape[-1] // size
    centre = step // 2  # the sample nearest to the pixel's centre: averaging depth over an edge has no meaning
    depth, alpha = depth[..., centre::step, centre::step], alpha[..., centre::step, centre::step]
    _, directions = slots.rays(size)
    forward = -slots.camera_to_world[..., None, None, :3, 2]
    distance = depth / (directions * forward).sum(-1).clamp_min(1e-3)
    weight = (alpha > 0.9) & (depth > 0)
    error = (ray_depth(raw, slots) - distance).abs() * weight
    return error.sum() / weight.sum().clamp_min(1)


def zoom(scene: SceneBatch, views: ViewSet, generator: torch.Generator) -> Tensor:
    """Scale of each vertex [V, 1] that makes its object fill the picture as a recentred photo does.

    The longest side of the object's outline becomes 65 to 90 % of the picture: of the largest outline among the four
    slots, or, for most single photos, of the photo alone (whose other sides nobody can measure).
    """
    batch = len(scene)
    cameras = views.world()[:, :SLOTS]
    world_to_view, focal = cameras.view_matrices(), cameras.intrinsics[..., None, :2]  # [B, 4, 4, 4], [B, 4, 1, 2]
    extent = torch.empty(batch, SLOTS)
    radius = torch.empty(batch)
    for b in range(batch):
        points = scene.vertices[scene.vertex_start[b] : scene.vertex_start[b + 1]]
        local = points @ world_to_view[b, :, :3, :3].transpose(-1, -2) + world_to_view[b, :, None, :3, 3]  # [4, P, 3]
        projected = local[..., :2] / local[..., 2:] * focal[b]
        extent[b] = (projected.amax(1) - projected.amin(1)).amax(-1)
        radius[b] = points.norm(dim=-1).max()
    fill = 0.65 + 0.25 * torch.rand(batch, generator=generator)
    photo = (views.known.sum(1) == 1) & (torch.rand(batch, generator=generator) < 0.7)
    measured = torch.where(photo, torch.maximum(extent[:, 0], 0.65 * extent.amax(1)), extent.amax(1))
    scale = torch.minimum(fill / measured.clamp_min(1e-3), MAX_RADIUS / radius.clamp_min(1e-3)).clamp(0.5, 2.0)
    return scale.repeat_interleave(scene.vertex_start.diff())[:, None]


def make_packed_object(seed: int, texture_size: int = 128) -> PackedObject:
    """One training object, generated and flattened; runs in worker processes."""
    from ...data.procedural import generate_object

    check_object_number(seed)
    return PackedObject.pack(generate_object(seed, texture_size=texture_size))


def check_object_number(seed: int) -> None:
    """Raise :class:`InputError` for objects that training must not see."""
    from ...data.procedural import HELD_OUT_SEEDS

    if not 0 <= seed < HELD_OUT_SEEDS.start:
        raise InputError(
            f"training object {seed}: numbers from 0 to {HELD_OUT_SEEDS.start - 1} are for training, the rest for "
            "evaluation; choose another --first-seed"
        )
