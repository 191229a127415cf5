"""Many objects in flat tensors on one device: :class:`AssetLibrary`.

What a pose changes (vertices, normals) is worked out at every step (:mod:`.pose`); pictures with their mip maps are shared by
all scenes and never copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError
from ..assets.catalogue import Dataset
from ..assets.pictures import decode_picture, fit_picture
from ..procedural.workers import ordered_map
from ..render import SceneBatch
from ..render.mipmaps import mip_chain
from ..render.scene import MAX_LEVELS
from .flat import FlatAsset, PictureKey, flatten_asset
from .pose import Pose, Ranges, make_scene

Tell = Callable[[str, float], None]


@dataclass
class ClipPlace:
    """Where a clip lies in a library: ``stride`` rows of ``matrices`` (or of ``points``) from ``start`` on for each frame."""

    name: str
    fps: float
    motion: float
    frames: int
    start: int
    stride: int
    moves_points: bool


class AssetLibrary:
    """Objects on a device.

    Attributes:
        names: of the objects. sources: of the objects. clips: per object, its clips.
        ranges: per object, where its rows begin in every table (on the host).
        points: [N, 3] float32, vertices at rest of all objects, then frames of moving ones.
        joints, weights: [V, 4] int16, uint8. matrices: [R, 12] float32; the first rows are identities.
        faces, groups: [F, 3] int32, counted within the object. uvs: [F, 3, 2] float32. material: [F] int32.
        members: [P, 2] int32. colours: [M, 3] float32, plain: [M] bool (no picture), levels: [M, 16] int64,
        sizes: [M, 4] int32, texels: [T, 4] uint8.
    """

    def __init__(
        self,
        assets: Sequence[FlatAsset],
        pictures: dict[PictureKey, list[NDArray[np.uint8]]],
        sources: Sequence[str],
        device: torch.device | str = "cpu",
    ) -> None:
        if not assets:
            raise InputError("a library needs at least one object")
        self.names = [a.name for a in assets]
        self.sources = list(sources)
        self.device = torch.device(device)
        self.clips: list[list[ClipPlace]] = []
        vertex_count = sum(len(a.vertices) for a in assets)
        still = max((c.matrices.shape[1] for a in assets for c in a.clips), default=0) + 1
        points, matrices = (
            [a.vertices for a in assets],
            [np.tile(np.eye(4, dtype=np.float32)[:3].reshape(12), (still, 1))],
        )
        next_point, next_matrix = vertex_count, still
        for a in assets:
            placed = []
            for c in a.clips:
                if len(c.points):
                    placed.append(ClipPlace(c.name, c.fps, c.motion, c.frames, next_point, len(a.vertices), True))
                    points.append(c.points.reshape(-1, 3))  # [T, V, 3] -> [T V, 3]
                    next_point += len(points[-1])
                else:
                    joints = c.matrices.shape[1]
                    placed.append(ClipPlace(c.name, c.fps, c.motion, c.frames, next_matrix, joints, False))
                    matrices.append(c.matrices.reshape(-1, 12))  # [T, J, 12] -> [T J, 12]
                    next_matrix += len(matrices[-1])
            self.clips.append(placed)
        self._keep_pictures(assets, pictures)

        def joined(arrays: list[NDArray]) -> Tensor:
            return torch.from_numpy(np.concatenate(arrays)).to(self.device)

        self.points, self.matrices = joined(points), joined(matrices)
        for name in ("joints", "weights", "faces", "uvs", "material", "groups", "members", "colours"):
            setattr(self, name, joined([getattr(a, name) for a in assets]))
        self.ranges = {
            "vertices": Ranges([len(a.vertices) for a in assets]),
            "faces": Ranges([len(a.faces) for a in assets]),
            "members": Ranges([len(a.members) for a in assets]),
            "materials": Ranges([len(a.colours) for a in assets]),
        }
        self.group_counts = np.array([a.group_count for a in assets], np.int64)

    def _keep_pictures(self, assets: Sequence[FlatAsset], pictures: dict[PictureKey, list[NDArray[np.uint8]]]) -> None:
        """Lay all levels of all pictures one behind the other, each once."""
        chunks = [np.full((1, 4), 255, np.uint8)]
        total = 1
        rows: dict[PictureKey, tuple[list[int], tuple[int, ...]]] = {}

        def put(chain: list[NDArray[np.uint8]]) -> tuple[list[int], tuple[int, ...]]:
            nonlocal total
            starts = []
            for level in chain:
                starts.append(total)
                chunks.append(level.reshape(-1, 4))  # [h, w, 4] -> [h w, 4]
                total += len(chunks[-1])
            starts += [starts[-1]] * (MAX_LEVELS - len(starts))
            return starts, (chain[0].shape[1], chain[0].shape[0], len(chain), int(chain[0][..., 3].min() < 255))

        white = ([0] * MAX_LEVELS, (1, 1, 1, 0))
        table = []
        for a in assets:
            for picture in a.pictures:
                if picture is None:
                    table.append(white)
                elif isinstance(picture, PictureKey):
                    if picture not in rows:
                        rows[picture] = put(pictures[picture])
                    table.append(rows[picture])
                else:
                    table.append(put(mip_chain(picture)))
        self.texels = torch.from_numpy(np.concatenate(chunks)).to(self.device)
        self.levels = torch.tensor([t[0] for t in table], dtype=torch.int64, device=self.device)
        self.sizes = torch.tensor([t[1] for t in table], dtype=torch.int32, device=self.device)
        plain = [p is None for a in assets for p in a.pictures]
        self.plain = torch.tensor(plain, device=self.device)

    @classmethod
    def load(
        cls,
        datasets: Sequence[Dataset],
        numbers: Sequence[tuple[int, int]] | None = None,
        device: torch.device | str = "cpu",
        *,
        workers: int = 0,
        texture_limit: int = 4096,
        most_frames: int = 32,
        decoded: str | PathLike[str] | None = None,
        tell: Tell | None = None,
    ) -> AssetLibrary:
        """Decode objects of dataset folders onto ``device``.

        Args:
            numbers: (which dataset, object) pairs; None is the training split of all.
            workers: processes that decode; 0 for none.
            texture_limit: pictures are scaled down to this many texels a side.
            most_frames: clips with more keep this many, spread evenly.
            decoded: folder in which the decoded library is kept, and looked for (:mod:`.saved`); None: nowhere.
            tell: is told what is going on, and the share of it that is done.

        Raises:
            DatasetError: an object's bytes are damaged. InputError: there is nothing to load.
        """
        tell = tell or (lambda what, share: None)
        if numbers is None:
            numbers = [(d, i) for d, data in enumerate(datasets) for i in data.select("train")]
        numbers = list(numbers)
        kept = None
        if decoded is not None and numbers:
            from .saved import library_path, read_library, save_library

            records = (datasets[d].record(i) for d, i in numbers)
            kept = library_path(decoded, records, texture_limit, most_frames)
            if (library := read_library(kept, device)) is not None:
                return library
        folders = [(str(data.folder), data.chosen_sources) for data in datasets]

        def work(function: Callable, items: list, what: str) -> list:
            made = ordered_map(function, items, workers) if workers else map(function, items)
            out = []
            for result in made:
                out.append(result)
                tell(what, len(out) / len(items))
            return out

        assets: list[FlatAsset] = work(partial(_flatten, folders, most_frames), numbers, "reading objects")
        keys = sorted({p for a in assets for p in a.pictures if isinstance(p, PictureKey)})
        chains = work(partial(_mip_maps, folders, texture_limit), keys, "reading pictures")
        sources = [datasets[d].record(i)["source"] for d, i in numbers]
        library = cls(assets, dict(zip(keys, chains)), sources, device)
        if kept is not None:
            save_library(library, kept)
        return library

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.names)

    def bytes(self) -> dict[str, int]:
        """Memory on the device by kind."""
        kinds = {
            "geometry": ("joints", "weights", "faces", "uvs", "material", "groups", "members"),
            "points": ("points",),
            "matrices": ("matrices",),
            "pictures": ("texels", "levels", "sizes", "colours", "plain"),
        }
        return {k: sum(getattr(self, n).nbytes for n in names) for k, names in kinds.items()}

    def scene(self, poses: Sequence[Pose], radius: float = 0.6, tints: Tensor | None = None) -> SceneBatch:
        """The posed objects side by side, each centred with a bounding sphere of ``radius``; see :func:`.pose.make_scene`."""
        return make_scene(self, poses, radius, tints)


_open: dict[tuple, list[Dataset]] = {}  # of this process


def _datasets(folders: list[tuple[str, list[str] | None]]) -> list[Dataset]:
    key = tuple((f, None if s is None else tuple(s)) for f, s in folders)
    if key not in _open:
        _open.clear()
        _open[key] = [Dataset(f, s) for f, s in folders]
    return _open[key]


def _flatten(folders: list[tuple[str, list[str] | None]], most_frames: int, number: tuple[int, int]) -> FlatAsset:
    """One object of one of the datasets; runs in worker processes."""
    which, inside = number
    data = _datasets(folders)[which]
    shard, _ = data.place(inside)
    record = data.record(inside)
    keys = [PictureKey(which, data.shards.index(shard), b, False) for b in record["textures"]]
    motions = [float(c["motion"]) for c in record["clips"]]
    return flatten_asset(data[inside], motions, keys, most_frames)


def _mip_maps(folders: list[tuple[str, list[str] | None]], limit: int, key: PictureKey) -> list[NDArray[np.uint8]]:
    """The levels of one picture; runs in worker processes."""
    picture = decode_picture(_datasets(folders)[key.dataset].shards[key.shard].blob(key.blob))
    if key.opaque:
        picture[..., 3] = 255
    return mip_chain(fit_picture(picture, limit))
