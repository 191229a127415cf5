"""Fetching and unpacking the Debian packages that hold asset collections; no root, nothing is installed.

``FOLDER/<package>/`` receives the package's files and ``FOLDER/<package>/.package.json`` what they came from. A ``.deb`` that a
person has put into FOLDER is used instead of downloading it.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import InputError
from ...files.atomic import output_error

MARK = ".package.json"
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Package:
    """A package as the index states it."""

    version: str
    size: int
    sha256: str


# The packages the readers were written for (Debian 12). A newer one of the index is taken too, with the index's hash.
KNOWN: dict[str, Package] = {
    "sweethome3d-furniture": Package(
        "1.8-1", 119782356, "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668"
    ),
    "0ad-data": Package(
        "0.0.26-1", 1377557908, "53745ae74d05bccf6783400fa98f3932b21729ab9d2e86151aa2c331c3455178"
    ),
    "supertuxkart-data": Package(
        "1.4+dfsg-2", 627742860, "568d69cda50dc8ad1facb89514bd14953dfca736fdb83c49ae330b0aa7dd2364"
    ),
    "megaglest-data": Package(
        "3.13.0-3", 242024888, "ed4783d9fc78e201a548b266f7c30325eb16cfd58a20bf4597dd6e622f84a07e"
    ),
    "ufoai-data": Package(
        "2.5-2", 312258886, "de889e5fe78c054724c3fa584e26591362f3e479488e92c9788ce1cd68b6ac22"
    ),
    "openarena-081-players": Package(
        "0.8.5split-14", 74721940, "34b80557c998079689a83b723976eafa7f85c9e36ba6f967e62c55c2a3204b62"
    ),
    "openarena-085-data": Package(
        "0.8.5split-14", 36983600, "2f43c30736db74dd5e9721520b34f2b7c70766154c6ebed4438d9b936ee15461"
    ),
    "openarena-088-data": Package(
        "0.8.8-12", 71701120, "277dd6d46d057d65884596f606c79c7393d9c0e240f6e4c4981706231f4ab00d"
    ),
    "openarena-data": Package(
        "0.8.5split-14", 44029708, "fa68862434f02a826b7ef22008f25f406623abf4e37113c1bfab5460065483c8"
    ),
    "flightgear-data-ai": Package(
        "1:2020.3.16+dfsg-1", 286529020, "a86b2acbf99ff2d49698abd2a2f4bc28ab0cf5a744218b4ca4d8aede8a67dc2f"
    ),
    "flightgear-data-models": Package(
        "1:2020.3.16+dfsg-1", 144289728, "e3f24a2e1b5fb34168aed4440e7cbfa41f8ce1196e42351abc5012f6e4263b4c"
    ),
    "blender-data": Package(
        "3.4.1+dfsg-2", 31389128, "5ceaf56a49ba3ded95c751d739aeec3d19e7fad76fba5cb70666986af9303b0e"
    ),
}  # fmt: skip


def in_index(package: str) -> Package | None:
    """The package in apt's index on this machine; None without apt or without the package."""
    if shutil.which("apt-cache") is None:
        return None
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", "--", package], capture_output=True, text=True, check=False
    )
    fields = dict(re.findall(r"^(Version|Size|SHA256): (\S+)$", shown.stdout, re.MULTILINE))
    if len(fields) < 3:
        return None
    return Package(fields["Version"], int(fields["Size"]), fields["SHA256"])


def installed(package: str, folder: Path) -> Package | None:
    """What is unpacked in ``folder``, or None. A folder without the mark was unpacked by hand and has no version."""
    place = folder / package
    try:
        return Package(**json.loads((place / MARK).read_text()))
    except (OSError, ValueError, TypeError):
        return Package("", 0, "") if (place / "usr").is_dir() else None


def by_hand(package: str, folder: Path) -> str:
    """How to get a package onto a machine that cannot fetch it."""
    known = KNOWN.get(package)
    version = f" {known.version} (sha256 {known.sha256})" if known else ""
    return (
        f"fetch {package}{version} on another machine (https://packages.debian.org/{package}, or `apt-get download "
        f"{package}`) and put the .deb file into {folder}/"
    )


def fetch_package(package: str, folder: str | os.PathLike[str], tell: Tell | None = None, keep: bool = False) -> Path:
    """Download (where it is not there), verify and unpack one package; returns ``folder/package``.

    Args:
        tell: progress, ``tell(what, share)``.
        keep: keep the downloaded .deb beside it.

    Raises:
        InputError: apt is absent or does not know the package, or the file's hash is wrong; the message says what to do.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    tell = tell or (lambda what, share: None)
    if installed(package, folder) is not None:
        return folder / package
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _workspace(folder) as work:
            given = sorted(folder.glob(f"{package}_*.deb"))
            if given:
                file, expected = given[-1], _expected_of(package, given[-1])
            else:
                expected = in_index(package)
                if expected is None:
                    why = "apt is not on this machine" if shutil.which("apt-get") is None else "apt does not know it"
                    hint = "" if shutil.which("apt-get") is None else " (try `apt-get update` first)"
                    raise InputError(f"cannot download {package}: {why}{hint}; {by_hand(package, folder)}")
                file = _download(package, expected, work, tell)
            found = _verified(file, expected, package, tell)
            tell(f"unpacking {package}", 0.0)
            tree = work / "tree"
            extract_deb(file, tree)
            (tree / MARK).write_text(json.dumps(asdict(found)) + "\n")
            if (folder / package).exists():  # an empty or half-unpacked folder
                shutil.rmtree(folder / package)
            os.replace(tree, folder / package)
            if keep and not given:
                os.replace(file, folder / file.name)
    except OSError as problem:
        raise output_error(folder, problem) from problem
    return folder / package


@contextmanager
def _workspace(folder: Path):
    # apt's unprivileged user must be able to enter it.
    with tempfile.TemporaryDirectory(prefix=".bozzetto-", dir=folder, ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        yield Path(name)


def _expected_of(package: str, file: Path) -> Package | None:
    """What a .deb that somebody put there should be, by the version in its name; None for a version nobody stated."""
    version = file.name.split("_")[1].replace("%3a", ":")
    for known in (KNOWN.get(package), in_index(package)):
        if known is not None and known.version in (version, f"1:{version}"):
            return known
    return None


def _download(package: str, expected: Package, work: Path, tell: Tell) -> Path:
    command = ["apt-get", "download", "-q", f"{package}={expected.version}"]
    with (work / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                here = sum(p.stat().st_size for p in list(work.glob("*.deb*")) if p.exists())
                tell(f"downloading {package}", here / max(expected.size, 1))
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        log.seek(0)
        said = [line.strip() for line in log if line.startswith(("E:", "W:"))]
    files = list(work.glob("*.deb"))
    if process.returncode or not files:
        reason = said[0] if said else f"apt-get ended with {process.returncode}"
        raise InputError(
            f"cannot download {package}: {reason}; try `apt-get update`, or {by_hand(package, work.parent)}"
        )
    return files[0]


def _verified(file: Path, expected: Package | None, package: str, tell: Tell) -> Package:
    digest, size, done = hashlib.sha256(), file.stat().st_size, 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            done += len(block)
            tell(f"verifying {package}", done / max(size, 1))
    found = digest.hexdigest()
    if expected is not None and (found != expected.sha256 or size != expected.size):
        raise InputError(
            f"{file} is not {package} {expected.version}: its sha256 is {found[:16]}…, it should be "
            f"{expected.sha256[:16]}…; remove it and fetch it again"
        )
    version = expected.version if expected is not None else file.name.split("_")[1].replace("%3a", ":")
    return Package(version, size, found)


def extract_deb(file: Path, target: Path) -> None:
    """Unpack the files of a .deb into the new folder ``target``: with dpkg-deb, or without it by reading the archive.

    Raises:
        InputError: not a .deb, or packed in a way that needs a tool that is absent.
    """
    target.mkdir(parents=True)
    if shutil.which("dpkg-deb") is not None:
        done = subprocess.run(["dpkg-deb", "-x", str(file), str(target)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"{file} cannot be unpacked: {done.stderr.strip() or 'dpkg-deb failed'}")
        return
    extract_deb_plainly(file, target)


def extract_deb_plainly(file: Path, target: Path) -> None:
    """:func:`extract_deb` by Python alone (an ar archive that holds a tar archive)."""
    with file.open("rb") as stream, tempfile.TemporaryFile() as plain:
        name = _seek_data(stream, file)
        if name.endswith(".zst"):
            stream = _unzstd(stream, plain, file)
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                archive.extractall(target, filter="data")
        except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as problem:
            raise InputError(f"{file} is damaged: {problem}; fetch it again") from problem


def _seek_data(stream, file: Path) -> str:
    """Position an ar archive at its member data.tar*; returns that member's name."""
    if stream.read(8) != b"!<arch>\n":
        raise InputError(f"{file} is not a Debian package")
    while len(head := stream.read(60)) == 60:
        name, size = head[:16].decode("ascii", "replace").strip().rstrip("/"), head[48:58]
        if name.startswith("data.tar"):
            return name
        try:
            stream.seek(int(size) + int(size) % 2, os.SEEK_CUR)
        except ValueError:
            break
    raise InputError(f"{file} is damaged: it holds no files; fetch it again")


def _unzstd(stream, plain, file: Path):
    """``stream`` unpacked into ``plain``, rewound: with the zstandard package or the zstd command."""
    try:
        import zstandard
    except ImportError:
        if shutil.which("zstd") is None:
            raise InputError(
                f"{file} is packed with zstd; install dpkg, the zstd command, or the Python package zstandard"
            ) from None
        process = subprocess.Popen(["zstd", "-dc"], stdin=subprocess.PIPE, stdout=plain)
        shutil.copyfileobj(stream, process.stdin)
        process.stdin.close()
        process.wait()
    else:
        zstandard.ZstdDecompressor().copy_stream(stream, plain)
    plain.seek(0)
    return plain


def missing_packages(packages: tuple[str, ...], folder: Path) -> list[str]:
    """Those of ``packages`` that are not unpacked in ``folder``."""
    return [p for p in packages if installed(p, folder) is None]
