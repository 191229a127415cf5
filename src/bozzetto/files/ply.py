"""Gaussian splats as PLY files: any layout in, the standard 3DGS layout or LGM's out.

A file stores logits of the opacities, logarithms of the scales, quaternions (w, x, y, z) and SH coefficients: f_dc_0..2
for degree 0, and f_rest_* channel-major, index = channel * (K - 1) + k - 1 (Kerbl et al. 2023). The numbers keep their
frame: files in this layout carry no axes of their own.
"""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch
from torch import Tensor

from ..errors import SplatFileError
from ..gaussians import SH_C0, Gaussians
from .inputs import read_input
from .ply_format import PlyElement, PlyError, parse_header, parse_ply, scalar_properties, write_ply_file

MEANS = ("x", "y", "z")
DC = ("f_dc_0", "f_dc_1", "f_dc_2")
SCALES = ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
REQUIRED = (*MEANS, *DC, "opacity", *SCALES, *QUATS)

LAYOUTS = ("3dgs", "lgm")
LGM_MIN_OPACITY = 0.005  # LGM drops fainter Gaussians when it saves
_OPACITY_MARGIN = 1e-6  # keeps the logit finite
_LGM_SCALE_OFFSET = 1e-8


def read_ply(path: str | PathLike[str], activated: bool = False) -> Gaussians:
    """Read Gaussian splats: properties in any order and of any type, SH degree 0 to 3, binary or ASCII.

    Reads files of LGM (14 properties), 3DGS (62) and gsplat; unknown properties and elements are ignored. Quaternions
    are kept as stored, but a quaternion of zero length (no rotation at all) becomes the identity.

    Args:
        activated: the file stores opacities, scales and colours themselves (LGM's ``compatible=False``) instead of
            logits, logarithms and SH coefficients.

    Raises:
        SplatFileError: not a PLY file, not a splat file, fields missing, rows missing or left over, NaN or infinity.
    """
    data = read_input(path, "a splat PLY", SplatFileError)
    try:
        _, elements, _, _ = parse_header(data)
        degree = _check_layout(next((e for e in elements if e.name == "vertex"), None), elements)
        table = parse_ply(data, ["vertex"])["vertex"]
    except PlyError as problem:
        raise SplatFileError(f"{path}: {problem}") from None
    del data
    n, k = table.element.count, (degree + 1) ** 2
    if n == 0:
        return Gaussians.empty(degree)
    groups = {
        "x, y, z": table.columns(MEANS),
        "opacity": table.columns(["opacity"]),
        "scale": table.columns(SCALES),
        "rot": table.columns(QUATS),
        "f_dc": table.columns(DC),
    }
    if k > 1:
        groups["f_rest"] = table.columns([f"f_rest_{i}" for i in range(3 * (k - 1))])
    _check_finite(path, groups)
    means, logits, logs, quats, dc = (
        torch.from_numpy(groups[g]) for g in ("x, y, z", "opacity", "scale", "rot", "f_dc")
    )
    logits = logits[:, 0]
    sh = torch.empty(n, k, 3)
    sh[:, 0] = (dc - 0.5) / SH_C0 if activated else dc
    if k > 1:
        sh[:, 1:] = torch.from_numpy(groups["f_rest"]).reshape(n, 3, k - 1).transpose(1, 2)  # channel-major in the file
    quats[(quats == 0).all(dim=-1)] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    if activated:
        return _check_activated(path, Gaussians(means, logs, quats, logits, sh))
    scales = torch.exp(logs)
    if not bool(torch.isfinite(scales).all()):
        count = int((~torch.isfinite(scales)).any(dim=-1).sum())
        raise SplatFileError(f"{path}: {count:,} of {n:,} Gaussians are infinitely large (scale is a logarithm)")
    return Gaussians(means, scales, quats, torch.sigmoid(logits), sh)


def _check_layout(vertex: PlyElement | None, elements: list[PlyElement]) -> int:
    """The SH degree of a splat file by its header; :class:`PlyError` for any other kind of PLY."""
    if vertex is None:
        raise PlyError("the PLY file has no element 'vertex', so it holds no splats")
    lists = [p.name for p in vertex.properties if p.count_type is not None]
    if lists:
        raise PlyError(f"the property {lists[0]} of vertex is a list; splats have one number per property")
    names = {p.name for p in vertex.properties}
    if "packed_position" in names:
        raise PlyError("it is a compressed splat PLY; decompress it first (for example with splat-transform)")
    missing = [n for n in REQUIRED if n not in names]
    if missing and not (names & {*DC, "opacity", *SCALES, *QUATS}):
        kind = "mesh" if any(e.name == "face" for e in elements) else "plain point cloud"
        raise PlyError(f"it is a {kind}, not Gaussian splats: it has none of f_dc_*, opacity, scale_*, rot_*")
    if missing:
        raise PlyError(f"fields are missing: {', '.join(missing)}")
    rest = sum(n.startswith("f_rest_") for n in names)
    degrees = {0: 0, 9: 1, 24: 2, 45: 3}
    if rest not in degrees:
        raise PlyError(f"it has {rest} f_rest fields; SH of degree 0 to 3 has 0, 9, 24 or 45")
    missing = [f"f_rest_{i}" for i in range(rest) if f"f_rest_{i}" not in names]
    if missing:
        raise PlyError(f"fields are missing: {', '.join(missing)}")
    return degrees[rest]


def _check_finite(path: str | PathLike[str], groups: dict[str, np.ndarray]) -> None:
    bad = {name: ~np.isfinite(values).all(axis=1) for name, values in groups.items() if not np.isfinite(values).all()}
    if bad:
        count, n = int(np.logical_or.reduce(list(bad.values())).sum()), len(next(iter(bad.values())))
        raise SplatFileError(
            f"{path}: {count:,} of {n:,} Gaussians have NaN or infinite values (in {', '.join(bad)}); the file is "
            "damaged or its training failed"
        )


def _check_activated(path: str | PathLike[str], gaussians: Gaussians) -> Gaussians:
    if bool((gaussians.scales < 0).any()) or bool(((gaussians.opacities < 0) | (gaussians.opacities > 1)).any()):
        raise SplatFileError(
            f"{path}: scales below 0 or opacities outside 0..1; it stores logarithms and logits, read it with "
            "activated=False"
        )
    return gaussians


def write_ply(gaussians: Gaussians, path: str | PathLike[str], layout: str = "3dgs", activated: bool = False) -> None:
    """Write unbatched Gaussians as binary little-endian float32, atomically.

    Args:
        layout: "3dgs" is the standard one (x y z, zero normals, f_dc, f_rest, opacity, scale, rot; all Gaussians).
            "lgm" is LGM's: 14 properties without normals and f_rest, so the colour loses its view-dependent part, and
            without the Gaussians under opacity 0.005.
        activated: store opacities, scales and colours themselves (LGM's ``compatible=False``); only this package and
            LGM read such a file.

    Quaternions are normalised. Raises SplatFileError for NaN or infinite values, OutputError if the file cannot be
    written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    gaussians = prepare_for_file(gaussians)
    if layout == "lgm":
        gaussians = gaussians.select(gaussians.opacities >= LGM_MIN_OPACITY)
    n = len(gaussians)
    opacities, scales, dc = gaussians.opacities, gaussians.scales, gaussians.sh[:, 0]
    if activated:
        dc = gaussians.rgb
    else:
        opacities = torch.logit(opacities.clamp(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN))
        # LGM's offset moves scales below 1e-5; the standard layout keeps them.
        scales = torch.log(scales + _LGM_SCALE_OFFSET if layout == "lgm" else scales.clamp_min(1e-12))
    parts: list[tuple[tuple[str, ...], Tensor]] = [(MEANS, gaussians.means)]
    if layout == "3dgs":
        rest = gaussians.sh[:, 1:].transpose(1, 2).flatten(1)  # [N, 3 * (K - 1)], channel-major
        parts.append((("nx", "ny", "nz"), torch.zeros(n, 3)))
        parts.append((DC, dc))
        parts.append((tuple(f"f_rest_{i}" for i in range(rest.shape[1])), rest))
    else:
        parts.append((DC, dc))
    parts += [(("opacity",), opacities[:, None]), (SCALES, scales), (QUATS, gaussians.quats)]
    names = [name for group, _ in parts for name in group]
    rows = torch.cat([values for _, values in parts], dim=1).numpy().astype("<f4", copy=False)  # [N, columns]
    write_ply_file(path, [("vertex", rows, scalar_properties(names))])


def prepare_for_file(gaussians: Gaussians) -> Gaussians:
    """Float32 on the CPU, unbatched, finite, quaternions of unit length (zero ones become the identity)."""
    if gaussians.batch_shape:
        raise ValueError(f"a file holds one object, got a batch {tuple(gaussians.batch_shape)}; pick one: gaussians[0]")
    gaussians = gaussians.detach().to("cpu", torch.float32)
    bad = torch.zeros(len(gaussians), dtype=torch.bool)
    for t in gaussians.tensors():
        bad |= ~torch.isfinite(t).reshape(len(gaussians), t.shape[1:].numel()).all(dim=-1)
    if bool(bad.any()):
        raise SplatFileError(
            f"{int(bad.sum()):,} of {len(gaussians):,} Gaussians have NaN or infinite values; drop them with prune()"
        )
    length = gaussians.quats.norm(dim=-1, keepdim=True)
    # Gaussians that a network left with a tiny quaternion still have a direction; only exact zero has none.
    unit = torch.where(length > 0, gaussians.quats / length, gaussians.quats.new_tensor([1.0, 0.0, 0.0, 0.0]))
    return Gaussians(gaussians.means, gaussians.scales, unit, gaussians.opacities, gaussians.sh)
