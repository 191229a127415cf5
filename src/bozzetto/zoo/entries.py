"""The list of weights. An entry says where the file is, what it must hash to, and under which licence it comes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnknownModelError


@dataclass(frozen=True)
class WeightsEntry:
    """One weights file.

    Attributes:
        name: what users type.
        system: which folder of ``systems/`` (or "matting") loads it.
        file: file name, inside the package for bundled weights, inside ``repo`` otherwise.
        repo: Hugging Face Hub repository, or None for a bundled file.
        sha256: of the file; None where no trustworthy figure is known.
        size: bytes; None where unknown.
        revision: commit, tag or branch of ``repo``; None is the newest.
        options: keyword arguments of the system's loader.
        inputs: what the model turns into Gaussians: "photo", "views".
    """

    name: str
    system: str
    file: str
    licence: str
    summary: str
    repo: str | None = None
    sha256: str | None = None
    size: int | None = None
    revision: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    @property
    def bundled(self) -> bool:
        """Whether the file comes with the package."""
        return self.repo is None


_LIST = (
    WeightsEntry(
        name="lgm-mini",
        system="lgm",
        file="lgm-mini.safetensors",
        sha256="da90e0f9236983bf86b8ef50b5273b0bc1788a3d1d033d48e4d98d9f87f3c603",
        size=21_037_836,
        licence="Apache-2.0",
        summary="photo or posed views (uses up to four) -> Gaussians; 10.5 M parameters, runs on a CPU",
        options={"preset_name": "mini"},
        inputs=("photo", "views"),
    ),
    WeightsEntry(
        name="lgm-big",
        system="lgm",
        file="model_fp16_fixrot.safetensors",
        repo="ashawkey/LGM",
        size=830_126_160,
        licence="MIT",
        summary="LGM as published: four posed views -> 65,536 Gaussians; 415 M parameters",
        options={"preset_name": "big"},
        inputs=("views",),
    ),
    WeightsEntry(
        name="lgm-big-legacy",
        system="lgm",
        file="model_fp16.safetensors",
        repo="ashawkey/LGM",
        licence="MIT",
        summary="LGM's file from before April 2024, trained with the faulty rotation activation",
        options={"preset_name": "big", "rotation": "legacy"},
        inputs=("views",),
    ),
    WeightsEntry(
        name="u2netp",
        system="matting",
        file="u2netp.safetensors",
        sha256="7ce6946d53c9c70571864ad847722988d4d20c8f0770605554377aa664ce7a30",
        size=4_522_876,
        licence="Apache-2.0",
        summary="background removal (U2-Net, small)",
    ),
)

ENTRIES: dict[str, WeightsEntry] = {e.name: e for e in _LIST}


def find_entry(name: str) -> WeightsEntry:
    """The entry called ``name``; raises :class:`UnknownModelError` listing the known ones."""
    if name not in ENTRIES:
        raise UnknownModelError(f"unknown model {name!r}; known: {', '.join(ENTRIES)}")
    return ENTRIES[name]
