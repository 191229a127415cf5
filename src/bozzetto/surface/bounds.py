"""Where the object is: which Gaussians belong to it and the box that holds them, in spite of floaters.

A trained splat cloud carries a few stray Gaussians far away or as large as the scene. A plain minimum and maximum would
spend the whole volume on them, so the box comes from opacity-weighted quantiles and from connected occupancy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MeshError
from ..gaussians import Gaussians, quaternion_to_matrix

MIN_OPACITY = 0.02  # fainter Gaussians are fog; they never make a surface
OCCUPANCY_CELLS = 48  # along the longest side
FEWEST_STEPS = 256  # of float32 that half an object must be across
MIN_COMPONENT_WEIGHT = 0.005  # share of all opacity that a detached group needs to count as part of the object


@dataclass
class NormalisedObject:
    """The object's Gaussians moved to the origin and scaled so that their box fits the unit sphere.

    Attributes:
        gaussians: float32, normalised frame.
        half_extent: [3], half the sides of the object's box in the normalised frame (its norm is 1).
        centre: [3] float64, world position of the normalised origin.
        scale: world units per normalised unit.
    """

    gaussians: Gaussians
    half_extent: Tensor
    centre: Tensor
    scale: float

    def to_world(self, points: Tensor) -> Tensor:
        """Normalised points [..., 3] -> world points, float32."""
        return (points.double() * self.scale + self.centre.to(points.device)).float()


def normalise_object(gaussians: Gaussians) -> NormalisedObject:
    """Pick the Gaussians that form the object and move them into the unit sphere.

    Raises:
        MeshError: no Gaussian is finite and visible, they have no extent or are too far away for float32, or are a batch.
    """
    if gaussians.batch_shape:
        raise MeshError("a mesh is made from one object: pick one of the batch first, e.g. gaussians[0]")
    usable = _usable(gaussians)
    if not bool(usable.any()):
        raise MeshError(
            f"none of the {len(gaussians):,} Gaussians is finite and at least {MIN_OPACITY:.0%} opaque, so there is no "
            "surface to mesh; check the splats (are they empty or fully transparent?)"
        )
    kept = gaussians.detach().select(usable)
    kept = kept.select(_not_giant(kept))
    kept = kept.select(_inside_generous_box(kept))
    kept = kept.select(_in_large_component(kept))
    low, high = _box(kept)
    centre = (low + high) / 2
    scale = float((high - low).norm() / 2)
    if not scale > 1e-30:
        raise MeshError(
            "the Gaussians have no extent (all at one point with zero scale), so there is no surface to mesh"
        )
    if scale < FEWEST_STEPS * torch.finfo(torch.float32).eps * float(centre.abs().max()):
        raise MeshError(
            f"the object is {2 * scale:.2g} across and {float(centre.abs().max()):.2g} from the origin, where float32 has no "
            "digits left for its shape; move it to the origin"
        )
    normalised = Gaussians(
        ((kept.means.double() - centre) / scale).float(),
        (kept.scales.double() / scale).float(),
        kept.quats.float(),
        kept.opacities.float(),
        kept.sh.float(),
    )
    return NormalisedObject(normalised, ((high - low) / (2 * scale)).float(), centre, scale)


def _usable(g: Gaussians) -> Tensor:
    finite = torch.isfinite(torch.cat([g.means, g.scales, g.quats, g.sh.flatten(1)], dim=1)).all(dim=1)
    visible = (g.opacities >= MIN_OPACITY) & (g.scales > 0).any(dim=1) & (g.quats != 0).any(dim=1)
    return finite & visible & torch.isfinite(g.opacities)


def _weighted_quantiles(values: Tensor, weights: Tensor, q: tuple[float, float]) -> Tensor:
    """Quantiles [2, 3] of ``values`` [N, 3] under ``weights`` [N]."""
    order = values.argsort(dim=0)  # [N, 3]
    cumulative = weights[order].cumsum(dim=0)
    targets = cumulative[-1:] * values.new_tensor(q)[:, None]  # [2, 3]
    index = torch.searchsorted(cumulative.T.contiguous(), targets.T.contiguous()).T.clamp_max(len(values) - 1)
    return values.gather(0, order.gather(0, index))


def _core(g: Gaussians) -> tuple[Tensor, Tensor]:
    """Centre [3] and half extent [3] of the middle 96 % of the opacity, float64."""
    low, high = _weighted_quantiles(g.means.double(), g.opacities.double(), (0.02, 0.98))
    return (low + high) / 2, (high - low) / 2


def _not_giant(g: Gaussians) -> Tensor:
    """Everything but Gaussians about as large as the whole object (backdrops)."""
    _, half = _core(g)
    largest = g.scales.double().amax(dim=-1)
    return largest <= 0.5 * half.norm() + 3 * largest.median()


def _inside_generous_box(g: Gaussians) -> Tensor:
    centre, half = _core(g)
    typical = g.scales.double().amax(dim=-1).median()
    reach = 2 * half + half.amax() + 4 * typical
    return ((g.means.double() - centre).abs() <= reach).all(dim=-1)


def _in_large_component(g: Gaussians) -> Tensor:
    """Gaussians in groups (26-connected cells of a coarse grid, one cell of tolerance) that hold enough opacity."""
    from scipy import ndimage

    means, weights = g.means.double(), g.opacities.double()
    low, high = means.amin(dim=0), means.amax(dim=0)
    side = (high - low).amax() / OCCUPANCY_CELLS
    if not float(side) > 0:
        return torch.ones(len(g), dtype=torch.bool, device=g.device)
    cell = ((means - low) / side).long()
    shape = (cell.amax(dim=0) + 1).tolist()
    flat = (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
    total = torch.zeros(shape[0] * shape[1] * shape[2], dtype=torch.float64, device=g.device).index_add_(
        0, flat, weights
    )
    full = (total > 0).reshape(shape).cpu().numpy()
    labels, _ = ndimage.label(ndimage.binary_dilation(full, iterations=1), structure=[[[1] * 3] * 3] * 3)
    component = torch.from_numpy(labels).to(g.device).reshape(-1).long()[flat]  # [N]
    mass = torch.zeros(int(component.max()) + 1, dtype=torch.float64, device=g.device).index_add_(0, component, weights)
    keep = mass >= MIN_COMPONENT_WEIGHT * mass.sum()
    keep[mass.argmax()] = True
    return keep[component]


def _box(g: Gaussians) -> tuple[Tensor, Tensor]:
    """Box of the Gaussians' two-sigma ellipsoids: (low [3], high [3]), float64."""
    axes = quaternion_to_matrix(g.quats.double()) * g.scales.double()[:, None, :]  # [N, 3, 3], columns are sigma * axis
    sigma = axes.square().sum(dim=-1).sqrt()
    # One over-long Gaussian shall not stretch the box: cap each at the 99th percentile.
    k = max(1, round(0.99 * len(g)))
    sigma = torch.minimum(sigma, sigma.kthvalue(k, dim=0).values)
    means = g.means.double()
    return (means - 2 * sigma).amin(dim=0), (means + 2 * sigma).amax(dim=0)
