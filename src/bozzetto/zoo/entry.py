"""What the zoo knows of one set of weights: files, place, hashes, licence, size in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

FREE = "free to use, also commercially"  # the terms of most
_SMALL = 10_000_000  # bytes; smaller files are settings and vocabularies, which do not count
_WIDTHS = {"fp16": 2, "fp32": 4}  # bytes per parameter


@dataclass(frozen=True)
class WeightsFile:
    """One file of an entry.

    Attributes:
        path: inside the repository, with forward slashes.
        size: bytes; None where the exact figure is not known.
        sha256: of the content, lower-case hex; None where no trustworthy figure is known.
        about: bytes, roughly, for display where ``size`` is None.
        optional: loaders do without it; it is fetched where the repository has it.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    about: int | None = None
    optional: bool = False


@dataclass(frozen=True)
class WeightsEntry:
    """A named set of weights files that is used as a whole.

    Attributes:
        name: what users type.
        system: which folder of ``systems/`` (or "matting") loads it.
        files: the files; an entry of one file is a path to that file, any other a folder that holds them.
        licence: SPDX name, or the licence's own.
        terms: what the licence means for users, in a few words.
        summary: what the network does.
        repo: Hugging Face Hub repository, or None.
        repo_type: "model" or "dataset", of ``repo``.
        url: base address of files that are not on the hub, ending in "/", or None.
        folder: where the files lie under ``BOZZETTO_WEIGHTS`` and in the download folder; ``repo`` where there is one.
        revision: commit, tag or branch of ``repo``; None is the newest.
        options: keyword arguments of the system's loader.
        inputs: what the network alone turns into Gaussians: "photo", "views".
        parameters: how many numbers the networks hold.
        dtype: precision in which they run on CUDA by default, "fp16" or "fp32"; on the CPU it is always fp32.
        extra: extra of this package that the networks need beside torch, or None.
        stands_for: another entry, whose place these weights can take; "" for none.
    """

    name: str
    system: str
    files: tuple[WeightsFile, ...]
    licence: str
    summary: str
    terms: str = ""
    repo: str | None = None
    repo_type: str = "model"
    url: str | None = None
    folder: str = ""
    revision: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    parameters: int | None = None
    dtype: str = "fp32"
    extra: str | None = None
    stands_for: str = ""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError(f"{self.name} has no files")
        if not self.folder and self.repo:
            object.__setattr__(self, "folder", self.repo)
        if self.url and not (self.folder and self.url.endswith("/")):
            raise ValueError(f"{self.name}: files from an address need a folder, and the address a slash at its end")

    @property
    def bundled(self) -> bool:
        """Whether the files come with the package."""
        return self.repo is None and self.url is None

    @property
    def single(self) -> bool:
        """Whether the entry is one file (and its place a file's path, not a folder's)."""
        return len(self.files) == 1

    @property
    def file(self) -> str:
        """Path of the only file, or of the first of several."""
        return self.files[0].path

    @property
    def sha256(self) -> str | None:
        """Hash of the only file; None for several."""
        return self.files[0].sha256 if self.single else None

    @property
    def size(self) -> int | None:
        """Bytes of the file, or of all weights files of several; None where one of them is not exactly known."""
        sizes = [f.size for f in self.files if f.size is not None or (f.about or 0) > _SMALL or self.single]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes of all files, roughly: exact sizes where known, else the figures for display."""
        return sum(f.size or f.about or 0 for f in self.files)

    @property
    def memory(self) -> int | None:
        """Bytes that the parameters alone take at the default precision on CUDA, computed from their number.

        Activations come on top; on the CPU, where all runs in fp32, fp16 networks take twice as much.
        """
        return None if self.parameters is None else self.parameters * _WIDTHS[self.dtype]

    @property
    def source(self) -> str:
        """Where the files come from, for people."""
        return "bundled with the package" if self.bundled else self.url or self.hub_page

    @property
    def hub_page(self) -> str:
        """Address of the hub's page about the repository."""
        return f"https://huggingface.co/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo}"

    def find_file(self, path: str) -> WeightsFile:
        """The file with that path; raises KeyError."""
        wanted = str(PurePosixPath(path))
        for file in self.files:
            if file.path == wanted:
                return file
        raise KeyError(path)
