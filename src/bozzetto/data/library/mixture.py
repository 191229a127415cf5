"""Which objects a step of training sees: shares of sources, weights of objects, poses. A pure function of (seed, step, part)."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch

from ...errors import InputError
from ..assets.catalogue import Dataset
from ..assets.licence_choice import check_licences
from .pose import Pose
from .store import AssetLibrary, Tell

PROCEDURAL = "procedural"
PROCEDURAL_SHARE = 0.3  # where nothing is said
LEAST_TRIANGLES = 60
WITHOUT = ("pieces",)  # flags of objects that are not trained on
LESS = ("foliage", "thin")  # flags of objects that teach less: leaves and bars of a pixel's width
LESS_WEIGHT = 0.3
AT_REST = 0.25  # share of an animated object's draws
LEAST_MOTION = 0.01  # of a clip that is worth a draw, units of the object's radius


def parse_mix(text: str) -> dict[str, float]:
    """``"procedural=0.3,zeroad=0.2"`` -> shares. Raises :class:`InputError` where it cannot be read or exceeds 1."""
    out: dict[str, float] = {}
    for item in filter(None, (x.strip() for x in text.split(","))):
        name, sign, value = item.partition("=")
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not sign or not name or not 0 <= share <= 1 or name in out:
            raise InputError(f"--mix {item!r}: write NAME=SHARE,NAME=SHARE with shares from 0 to 1, each name once")
        out[name] = share
    if sum(out.values()) > 1 + 1e-9:
        raise InputError(f"the shares of --mix are {sum(out.values()):g} together; they must not exceed 1")
    return out


class Mixture:
    """The training objects of dataset folders and how often each is drawn.

    Sources that ``mix`` does not name share what is left, each by the square root of its number of groups. Within a source
    an object's weight is one over the square root of its group's size (a mesh in eighty costumes counts as nine), times 0.3
    where it is foliage or thin. Only the datasets' training split is looked at, objects of at least 60 triangles in one piece.

    Args:
        datasets: opened folders; a source may be in one of them only.
        mix: shares by source; "procedural" is the share of generated objects.
        licences: only objects that can be used under these alone, "clean" among them; None for all.

    Attributes:
        numbers: (dataset, object) pairs, as :meth:`AssetLibrary.load` takes them.
        procedural: share of generated objects. shares: of the sources among *all* objects.

    Raises:
        InputError: a name of ``mix`` or ``licences`` is unknown, a source stands in two folders, or nothing is left to
            train on.
    """

    def __init__(
        self, datasets: Sequence[Dataset], mix: dict[str, float], licences: tuple[str, ...] | None = None
    ) -> None:
        self.datasets = list(datasets)
        check_licences(licences or (), [r["licence"] for data in datasets for r in data.records()])
        self.numbers: list[tuple[int, int]] = []
        owner: dict[str, int] = {}
        found: dict[str, list[tuple[int, int, dict]]] = {}
        for d, data in enumerate(datasets):
            for i in data.select("train", without=WITHOUT, licences=licences):
                record = data.record(i)
                source = record["source"]
                if owner.setdefault(source, d) != d:
                    raise InputError(
                        f"{source} is in {datasets[owner[source]].folder} and in {data.folder}; give it once"
                    )
                if record["triangles"] >= LEAST_TRIANGLES:
                    found.setdefault(source, []).append((d, i, record))
        if unknown := set(mix) - set(found) - {PROCEDURAL}:
            known = ", ".join([PROCEDURAL, *found])
            raise InputError(
                f"--mix names {', '.join(sorted(unknown))}, of which there is no training data; known: {known}"
            )
        if datasets and not found:
            raise InputError(
                f"{', '.join(str(data.folder) for data in datasets)}: no object there may be trained on (held out, "
                "under the GPL or another licence than asked for, in scattered pieces, or too simple)"
            )
        self.procedural = mix.get(PROCEDURAL, PROCEDURAL_SHARE if found else 1.0)
        named = {s: mix[s] for s in found if s in mix}
        others = {s: math.sqrt(len({r["group"] for *_, r in rows})) for s, rows in found.items() if s not in mix}
        left = max(1 - self.procedural - sum(named.values()), 0.0)
        shares = named | {s: left * w / sum(others.values()) for s, w in others.items()}
        total = self.procedural + sum(shares.values())
        if total <= 0:
            raise InputError("nothing is left to train on: all shares are 0")
        self.procedural /= total
        self.shares = {s: share / total for s, share in shares.items() if share > 0}
        self.weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # numbers within ``numbers``, cumulative weights
        digest = hashlib.sha256()
        for source in self.shares:
            rows = found[source]
            sizes = Counter(r["group"] for *_, r in rows)
            weight = [sizes[r["group"]] ** -0.5 * (LESS_WEIGHT if set(LESS) & set(r["flags"]) else 1) for *_, r in rows]
            first = len(self.numbers)
            self.numbers += [(d, i) for d, i, _ in rows]
            cumulative = np.cumsum(weight)
            self.weights[source] = (np.arange(first, len(self.numbers)), cumulative / cumulative[-1])
            for *_, r in rows:
                digest.update(r["digest"].encode())
        self.digest = digest.hexdigest()[:16]

    @classmethod
    def open(
        cls,
        folders: Sequence[str | PathLike[str]],
        mix: dict[str, float],
        licences: tuple[str, ...] | None = None,
    ) -> Mixture:
        """The mixture of dataset folders. Raises :class:`DatasetError` where one cannot be read, and as the class does."""
        return cls([Dataset(folder) for folder in folders], mix, licences)

    def load(
        self,
        device: torch.device | str,
        workers: int = 0,
        decoded: str | PathLike[str] | None = None,
        tell: Tell | None = None,
    ) -> AssetLibrary:
        """All objects that may be drawn, on ``device``, in the order of :attr:`numbers`; see :meth:`AssetLibrary.load`."""
        return AssetLibrary.load(self.datasets, self.numbers, device, workers=workers, decoded=decoded, tell=tell)

    def __len__(self) -> int:
        """Number of objects that may be drawn."""
        return len(self.numbers)

    def procedural_count(self, batch: int) -> int:
        """How many objects of a batch are generated ones: the share, rounded, but none of both kinds is left out."""
        if not self.numbers:
            return batch
        count = round(self.procedural * batch)
        if batch > 1 and self.procedural > 0:
            count = max(count, 1)
        return min(count, batch - (batch > 1 or self.procedural < 0.5))

    def draw(self, count: int, key: Sequence[int]) -> list[int]:
        """``count`` objects (with replacement) for the whole numbers ``key``: places in :attr:`numbers`."""
        rng = np.random.default_rng([*key, 0])
        names = list(self.shares)
        share = np.cumsum([self.shares[s] for s in names])
        out = []
        for u, v in rng.random((count, 2)):
            numbers, cumulative = self.weights[names[int(np.searchsorted(share, u * share[-1], side="right"))]]
            out.append(int(numbers[min(int(np.searchsorted(cumulative, v, side="right")), len(numbers) - 1)]))
        return out


def draw_poses(library: AssetLibrary, numbers: Sequence[int], key: Sequence[int]) -> list[Pose]:
    """A pose for each object: at rest, or any frame of one of its clips, the more a clip moves the likelier."""
    rng = np.random.default_rng([*key, 1])
    out = []
    for number, (u, v, w) in zip(numbers, rng.random((len(numbers), 3))):
        moving = [(k, c) for k, c in enumerate(library.clips[number]) if c.motion >= LEAST_MOTION]
        if not moving or u < AT_REST:
            out.append(Pose(number))
            continue
        weight = np.cumsum([math.sqrt(c.motion) for _, c in moving])
        k, clip = moving[min(int(np.searchsorted(weight, v * weight[-1], side="right")), len(moving) - 1)]
        out.append(Pose(number, k, min(int(w * clip.frames), clip.frames - 1)))
    return out
