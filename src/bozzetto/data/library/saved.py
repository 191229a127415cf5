"""A library on disk, decoded: the next start reads in a second what took many.

One ``.safetensors`` file, named by what is in it: the objects' records and the limits they were decoded with. It is written
whole or not at all, so several processes may look for it, and make it, at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .pose import Ranges
from .store import AssetLibrary, ClipPlace

FORMAT = 1
TENSORS = ("points", "matrices", "joints", "weights", "faces", "uvs", "material", "groups", "members", "colours")
TENSORS += ("texels", "levels", "sizes", "plain")


def library_path(folder: str | Path, records: Iterable[dict[str, Any]], texture_limit: int, most_frames: int) -> Path:
    """Where the library of the objects of these records lies in ``folder``."""
    mark = hashlib.sha256(f"{FORMAT} {texture_limit} {most_frames}".encode())
    for record in records:
        mark.update(json.dumps(record, sort_keys=True).encode())
    return Path(folder) / f"library-{mark.hexdigest()[:24]}.safetensors"


def save_library(library: AssetLibrary, path: Path) -> None:
    """Write ``library`` to ``path``."""
    from safetensors.torch import save_file

    from ...files.atomic import atomic_path

    about = {
        "names": library.names,
        "sources": library.sources,
        "clips": [[asdict(c) for c in clips] for clips in library.clips],
        "counts": {k: r.count.tolist() for k, r in library.ranges.items()},
        "group_counts": library.group_counts.tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        tensors = {name: getattr(library, name).cpu().contiguous() for name in TENSORS}
        save_file(tensors, temporary, {"about": json.dumps(about)})


def read_library(path: Path, device: torch.device | str) -> AssetLibrary | None:
    """The library of a file of :func:`save_library` on ``device``; None where there is none that can be read."""
    import numpy as np
    from safetensors import safe_open

    if not path.is_file():
        return None
    device = torch.device(device)
    where = f"cuda:{device.index or 0}" if device.type == "cuda" else str(device)
    try:
        with safe_open(path, framework="pt", device=where) as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in TENSORS}
    except MemoryError:
        raise
    except Exception:  # damaged, or of an older format: it is made anew
        return None
    library = AssetLibrary.__new__(AssetLibrary)
    library.device = device
    library.names, library.sources = about["names"], about["sources"]
    library.clips = [[ClipPlace(**c) for c in clips] for clips in about["clips"]]
    library.ranges = {k: Ranges(c) for k, c in about["counts"].items()}
    library.group_counts = np.array(about["group_counts"], np.int64)
    for name, tensor in tensors.items():
        setattr(library, name, tensor)
    return library
