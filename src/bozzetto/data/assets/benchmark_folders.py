"""Objects of Amazon Berkeley Objects and OmniObject3D, in folders as their archives unpack."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from ...errors import InputError
from .user_folder import FileTask


def abo_tasks(folder: Path, source: str) -> list[FileTask]:
    """The GLB files below ``3dmodels/original``, with what the listings beside them say."""
    listings = _abo_listings(folder)
    licence = _abo_licence(folder)
    out = []
    for path in folder.glob("3dmodels/original/*/*.glb"):
        entry = listings.get(path.stem, {})
        category = _english(entry.get("product_type"), plain=True).replace("_", " ").capitalize()
        caption = _english(entry.get("item_name")) or category
        out.append(
            FileTask(path, source, path.stem, licence=licence, author="Amazon.com", caption=caption, category=category)
        )
    return out


def _abo_licence(folder: Path) -> str:
    """What the licence file beside the data is called after: older releases are CC-BY-NC-4.0, newer ones CC-BY-4.0."""
    found = sorted(p.stem.removeprefix("LICENSE-") for p in folder.glob("LICENSE-*.txt"))
    return found[0] if found else ""


def _abo_listings(folder: Path) -> dict[str, dict[str, Any]]:
    """Model id -> the first listing that names it; empty without listings."""
    out: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("listings/metadata/listings_*.json.gz")):
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    entry = json.loads(line)
                    if entry.get("3dmodel_id"):
                        out.setdefault(str(entry["3dmodel_id"]), entry)
        except (OSError, ValueError, EOFError) as problem:
            raise InputError(f"{path} cannot be read: {problem}; download it again") from problem
    return out


def _english(values: Any, plain: bool = False) -> str:
    """The text of a listing's field, a list of {"language_tag", "value"}: English before any other language."""
    entries = [v for v in values or () if isinstance(v, dict) and v.get("value")]
    if plain:
        return str(entries[0]["value"]) if entries else ""
    entries.sort(key=lambda v: not str(v.get("language_tag", "")).startswith("en"))
    return str(entries[0]["value"])[:500] if entries else ""


def omni_tasks(folder: Path, source: str) -> list[FileTask]:
    """Every ``<category>_<number>/Scan/Scan.obj``; the category is the name of the scan without its number."""
    out = []
    for path in folder.rglob("Scan/Scan.obj"):
        name = path.parent.parent.name
        category = name.rstrip("0123456789").rstrip("_") or name
        words = category.replace("_", " ")
        out.append(
            FileTask(path, source, name, licence="CC-BY-4.0", author="OmniObject3D", caption=words, category=words)
        )
    return out
