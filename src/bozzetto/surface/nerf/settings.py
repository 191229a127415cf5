"""How long and how finely the NeRF route works: the published converter's numbers, and fewer for a CPU.

Where they differ from the published ones, for every device:

* The object is scaled to a sphere of radius :data:`OBJECT_RADIUS`, so that splats of any size fit the published cameras; marching
  cubes samples the object's box instead of the cube of side 2, so that none of its samples are spent on nothing.
* Refinement and texture look from elevations within 30 degrees and from all around (published: 10 degrees for the mesh; 5 degrees
  and 15 to the left and right of the front for the texture): splats of posed views or of a fit have no front, and the colour of
  what no picture shows is a guess.
* The mesh is not remeshed to edges of one length: quadric decimation to the face limit and smoothing along the surface keep the
  triangles regular enough, and no package for remeshing is needed.
* Where fewer steps are taken, all rates but the vertices' are raised in proportion, to eight times at most. A field that learns
  for half as long at the published rates stays fog, and its surface is full of pits. Vertices move by the
  published share of a pixel a step, since faster ones make jagged outlines; the end smooths them a little for the same reason.
* Alpha is steepened around one half (``hardness``). Half-transparent pictures have no surface that explains them from all sides:
  their field is torn where the splats are fog.
* The texture learns from all around, half of it near the front, right, back and left, where networks have their input views, and
  from a pixel the less, the farther its splats lie apart in depth: fog would blur it. Each texel is in sight of few of these
  pictures, so that its rate is five times the published one.
* The texture learns from pixels that are opaque in the picture only; half-transparent borders would bleach the outlines' texels.
* Colours are blended at outlines as alpha is, not alpha alone, so that outlines in front of other parts pull as well.
* Samples are taken inside the visual hull of 26 pictures only, which changes no result and spares most of the first steps' work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ...errors import MeshError

MOST_FASTER = 8.0  # times that rates grow in short runs
OBJECT_RADIUS = 0.6  # a sphere of this radius just fits a camera at distance 1.5 with 49.1 degrees


@dataclass(frozen=True)
class NerfSettings:
    """Defaults are those for a GPU; lengths are in the field's frame, a cube of side 2.

    Attributes:
        field_steps: training steps of the field, one view each. field_size: side of its pictures in pixels.
        step: distance between samples on a ray. levels, table, finest: of the two hash grids (levels; most rows of a level;
            cells along the finest one). occupancy: cells along the grid that says where to sample.
        variation_points: where the total variation of the density grid is penalised in a step.
        resolution: samples of marching cubes along the object's box. density: of the surface.
        refine_steps, refine_size: the same for the mesh. refine_rounds: how often it is cleaned in between.
        texture_steps, texture_fit_size: the same for the texture. elevation: degrees above and below for these two.
        texture_rate: of Adam for the texture's logits.
        hardness: by how much the pictures' alpha is steepened around one half; 1 leaves it as it is.
    """

    field_steps: int = 512
    field_size: int = 128
    step: float = 5e-3
    levels: int = 12
    table: int = 1 << 19
    finest: int = 2048
    occupancy: int = 64
    variation_points: int = 1_000_000
    resolution: int = 256
    density: float = 10.0
    refine_steps: int = 2048
    refine_size: int = 512
    refine_rounds: int = 3
    texture_steps: int = 512
    texture_fit_size: int = 512
    elevation: float = 30.0
    texture_rate: float = 5e-3
    hardness: float = 4.0

    @classmethod
    def for_device(cls, device: torch.device) -> NerfSettings:
        """The published amount of work on a GPU; on a CPU an amount that ends in a few minutes."""
        if device.type == "cuda":
            return cls()
        return cls(
            field_steps=256,
            field_size=64,
            step=1e-2,
            table=1 << 16,
            finest=512,
            variation_points=1 << 14,
            resolution=160,
            refine_steps=384,
            refine_size=192,
            texture_steps=64,
            texture_fit_size=256,
        )

    def changed(self, steps: int | None = None, size: int | None = None, resolution: int | None = None) -> NerfSettings:
        """With another length (``steps`` of the field; the other stages in proportion), picture size or resolution.

        Args:
            size: of the refinement's pictures in pixels; the field's are a quarter of it (a third on a CPU, as by default).
        """
        made = self
        if steps is not None:
            ratio = steps / self.field_steps
            made = replace(
                made,
                field_steps=steps,
                refine_steps=max(1, round(self.refine_steps * ratio)),
                texture_steps=max(1, round(self.texture_steps * ratio)),
            )
        if size is not None:
            ratio = size / self.refine_size
            made = replace(
                made,
                refine_size=size,
                field_size=max(16, round(self.field_size * ratio)),
                texture_fit_size=max(16, round(self.texture_fit_size * ratio)),
            )
        if resolution is not None:
            made = replace(made, resolution=resolution)
        return made

    def rate_scale(self, stage: str) -> float:
        """By what the rates of "field", "refine" or "texture" are multiplied: fewer steps reach as far, up to a limit."""
        published = getattr(NerfSettings, f"{stage}_steps")
        return min(MOST_FASTER, max(1.0, published / max(1, getattr(self, f"{stage}_steps"))))

    def vertex_rate_scale(self) -> float:
        """The same for vertices: a step is the published share of a pixel, at most."""
        return min(self.rate_scale("refine"), max(1.0, NerfSettings.refine_size / self.refine_size))

    def check(self) -> None:
        """Raise :class:`MeshError` for numbers that no run can have."""
        ranges = {
            "field_steps": (1, 100_000), "refine_steps": (0, 100_000), "texture_steps": (0, 100_000),
            "field_size": (16, 1024), "refine_size": (16, 2048), "texture_fit_size": (16, 2048), "resolution": (16, 1024),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                kind = name.rpartition("_")[2]  # one number of the caller's sets all three of a kind
                advice = {"steps": "; choose other steps", "size": "; choose another picture size"}.get(kind, "")
                raise MeshError(f"{name} must lie in {low}..{high}, got {getattr(self, name)}{advice}")
