"""What 0 A.D. calls its actors: names, civilisation and classes from the game's entity templates."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FOLDER = "simulation/templates/"


@dataclass(frozen=True)
class ActorName:
    """generic ("Allied Cavalry"), specific ("Eques Socius"), civilisation ("Romans"), classes ("Javelineer", ...)."""

    generic: str
    specific: str
    civilisation: str
    classes: tuple[str, ...]


class _Templates:
    def __init__(self, fetch: Callable[[str], bytes | None]) -> None:
        self.fetch = fetch
        self.known: dict[str, dict] = {}

    def resolve(self, name: str, depth: int = 0) -> dict:
        """Fields of a template with those of its parents below."""
        if name in self.known:
            return self.known[name]
        data = self.fetch(f"{FOLDER}{name}.xml")
        out: dict = {"classes": ()}
        if data is None or depth > 30:
            return out
        try:
            root = ElementTree.fromstring(data)
        except ElementTree.ParseError:
            return out
        for parent in (root.get("parent") or "").split("|"):
            if parent:
                inherited = self.resolve(parent, depth + 1)
                classes = tuple(dict.fromkeys(out["classes"] + inherited["classes"]))
                out = {**inherited, **{k: v for k, v in out.items() if v}, "classes": classes}
        fields = {
            "actor": "VisualActor/Actor",
            "civ": "Identity/Civ",
            "generic": "Identity/GenericName",
            "specific": "Identity/SpecificName",
        }
        for key, path in fields.items():
            if text := (root.findtext(path) or "").strip():
                out[key] = text
        for path in ("Identity/Classes", "Identity/VisibleClasses"):
            for token in (root.findtext(path) or "").split():
                if token.startswith("-"):
                    out["classes"] = tuple(c for c in out["classes"] if c != token[1:])
                elif token not in out["classes"]:
                    out["classes"] = (*out["classes"], token)
        self.known[name] = out
        return out


def actor_names(fetch: Callable[[str], bytes | None], files: Iterable[str]) -> dict[str, ActorName]:
    """Actor path in lower case -> its name. ``files`` are all paths of the archive, ``fetch`` reads one."""
    files = sorted(files)
    templates = _Templates(fetch)
    out: dict[str, ActorName] = {}
    for path in files:
        if not (path.startswith(FOLDER) and path.endswith(".xml")):
            continue
        entry = templates.resolve(path[len(FOLDER) : -4])
        actor, generic = entry.get("actor", ""), entry.get("generic", "")
        if not actor or not generic:
            continue
        civilisation = entry.get("civ", "")
        actor = actor.replace("{civ}", civilisation).lower()
        people = (
            templates.resolve(f"special/players/{civilisation}").get("generic", "")
            if civilisation not in ("", "gaia")
            else ""
        )
        name = ActorName(generic, entry.get("specific", ""), people, tuple(entry["classes"]))
        for phenotype in ("male", "female") if "{phenotype}" in actor else ("",):
            out.setdefault(actor.replace("{phenotype}", phenotype), name)
    return out
