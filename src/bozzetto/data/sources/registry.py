"""The collections that can be read: which packages hold them, under which licences, and whether they may be trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ...errors import InputError
from ..assets.source_object import SourceObject


@dataclass(frozen=True)
class Source:
    """One collection.

    Attributes:
        name: as in :attr:`SourceObject.source`; also the reader's module.
        title: for people.
        packages: Debian packages that hold it; unpacked into one folder, or each into its own folder beside the others.
        megabytes: size of the packages as downloaded.
        licences: of its objects; the object's own :attr:`SourceObject.licence` is what counts.
        held_out: never trained on, only measured with.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    megabytes: int
    licences: tuple[str, ...]
    held_out: bool = False

    def read(self, folder: Path) -> Iterator[SourceObject]:
        """Objects of the collection, one by one; what cannot be read is logged and left out.

        Args:
            folder: where the packages were unpacked (``dpkg-deb -x``), or the folder that holds those folders.

        Raises:
            InputError: the packages' files are not there.
        """
        reader: Callable[[Path], Iterator[SourceObject]] = import_module(f"{__package__}.{self.name}").read
        return reader(Path(folder))


_ALL = (
    Source("zeroad", "0 A.D.", ("0ad-data",), 1378, ("CC-BY-SA-3.0",)),
    Source(
        "supertuxkart",
        "SuperTuxKart",
        ("supertuxkart-data",),
        628,
        ("CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0", "public-domain", "GPL-3+"),
    ),
    Source("megaglest", "MegaGlest", ("megaglest-data",), 242, ("CC-BY-SA-3.0",)),
    Source(
        "ufoai",
        "UFO: Alien Invasion",
        ("ufoai-data",),
        312,
        ("GPL-2+", "GPL-2", "CC-BY-SA-3.0", "CC-BY-3.0", "public-domain"),
        held_out=True,
    ),
    Source(
        "openarena",
        "OpenArena players",
        ("openarena-081-players", "openarena-085-data", "openarena-088-data", "openarena-data"),
        228,
        ("GPL-2+", "GPL-2"),
        held_out=True,
    ),
    Source("flightgear_ai", "FlightGear AI aircraft", ("flightgear-data-ai",), 287, ("GPL-2+",), held_out=True),
    Source(
        "sweethome3d",
        "Sweet Home 3D furniture",
        ("sweethome3d-furniture",),
        120,
        ("CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"),
    ),
)

# What else can be fetched: not objects but light (eight panoramas of HDRI Haven), for ``bozzetto data light``.
LIGHT = Source("surroundings", "HDRI Haven panoramas", ("blender-data",), 31, ("CC0-1.0",))

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}


def find_packages(name: str) -> tuple[str, ...]:
    """The packages of a collection or of the panoramas. Raises as :func:`find_source`."""
    return LIGHT.packages if name == LIGHT.name else find_source(name).packages


def find_source(name: str) -> Source:
    """The collection called ``name``.

    Raises:
        InputError: there is none; the message lists all.
    """
    if name not in SOURCES:
        raise InputError(f"no asset source is called {name!r}; there are: {', '.join((*SOURCES, LIGHT.name))}")
    return SOURCES[name]
