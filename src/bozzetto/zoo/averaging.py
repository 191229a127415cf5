"""The mean of several networks' weights: where one was trained on from the other, it often does what both do well.

After Wortsman et al. 2022, "Model soups".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import CheckpointError
from .loading import read_tensors

_SHOWN = 8


def mean_weights(files: Sequence[str]) -> dict[str, Tensor]:
    """Tensors of several weights files of one network -> their means, in float32.

    Args:
        files: what :func:`.loading.read_tensors` reads, at least one; one that is named twice counts twice.

    Returns:
        name -> mean; tensors of whole numbers as in the first file.

    Raises:
        CheckpointError: a file that cannot be read, or that is of another network than the first; lists what differs.
    """
    first = read_tensors(files[0])
    total = {name: _summand(tensor).clone() for name, tensor in first.items()}
    for file in files[1:]:
        other = read_tensors(file)
        _compare(first, other, files[0], file)
        for name, tensor in total.items():
            if tensor.is_floating_point():
                tensor += _summand(other[name])
    return {name: t / len(files) if t.is_floating_point() else t for name, t in total.items()}


def _summand(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _compare(first: Mapping[str, Tensor], other: Mapping[str, Tensor], a: str, b: str) -> None:
    """Refuse networks that differ in names, shapes or whole numbers."""
    differing = [f"lacks {name}" for name in first if name not in other]
    differing += [f"has {name} besides" for name in other if name not in first]
    for name in first.keys() & other.keys():
        if first[name].shape != other[name].shape:
            differing.append(f"{name} is {list(other[name].shape)} instead of {list(first[name].shape)}")
        elif not first[name].is_floating_point() and not torch.equal(first[name], other[name]):
            differing.append(f"{name} has other whole numbers")
    if differing:
        more = f" and {len(differing) - _SHOWN} more differences" if len(differing) > _SHOWN else ""
        raise CheckpointError(
            f"{b} is not of the same network as {a}, so they have no mean: it {'; '.join(sorted(differing)[:_SHOWN])}{more}"
        )
