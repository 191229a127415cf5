"""0 A.D.'s actor files: XML that says which mesh, textures, props and animations make up one thing.

An actor has groups, each a choice among variants; later groups override earlier ones. Here one variant is drawn for each
group by its frequency, and of things offered in several qualities the best is taken.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Fetch = Callable[[str], bytes | None]


@dataclass
class Actor:
    """What one draw of an actor file gave.

    Attributes:
        mesh: path below ``art/meshes``, or "". texture: base colour picture below ``art/textures/skins``, or "".
        material: name of the material file, which decides what the texture's alpha means.
        colour: rgb 0..1 where the material paints with the object's own colour.
        props: attachment point -> actor paths. animations: (name in lower case, path below ``art/animation``).
        names: of the variants that were chosen, in lower case; props choose variants of the same names.
    """

    mesh: str = ""
    texture: str = ""
    material: str = ""
    colour: tuple[float, float, float] | None = None
    props: dict[str, list[str]] = field(default_factory=dict)
    animations: list[tuple[str, str]] = field(default_factory=list)
    names: frozenset[str] = frozenset()


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _best(elements: list[ElementTree.Element]) -> list[ElementTree.Element]:
    """Without those that only lower graphics settings show."""
    return [e for e in elements if not e.get("maxquality")]


class ActorFiles:
    """Actors of one game archive. ``fetch`` gives a file's bytes by path below ``art/``, or None."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._trees: dict[str, ElementTree.Element | None] = {}

    def _tree(self, path: str) -> ElementTree.Element | None:
        if path not in self._trees:
            data = self._fetch(path)
            try:
                self._trees[path] = ElementTree.fromstring(data) if data is not None else None
            except ElementTree.ParseError:
                self._trees[path] = None
        return self._trees[path]

    def _actor(self, path: str, depth: int = 0) -> ElementTree.Element | None:
        """The <actor> element (or one that stands for it) at its best quality."""
        root = self._tree("actors/" + path)
        if root is None or root.tag != "qualitylevels" or depth > 4:
            return root
        inline = root.find("inline")
        for level in reversed(root.findall("actor")):  # ascending quality; the last is the best
            if level.get("file"):
                found = self._actor(level.get("file", ""), depth + 1)
                if found is not None:
                    return found
            elif level.get("inline") is not None and inline is not None:
                return inline
            elif len(level):
                return level
        return inline

    def _read_variant(self, variant: ElementTree.Element, out: Actor, depth: int = 0) -> None:
        """Add what ``variant`` says to ``out``: first the file it builds on, then its own words."""
        if variant.get("file") and depth < 8:
            base = self._tree("variants/" + variant.get("file", ""))
            if base is not None:
                self._read_variant(base, out, depth + 1)
        out.mesh = _text(variant, "mesh") or out.mesh
        for texture in variant.iterfind("textures/texture"):
            if texture.get("name") == "baseTex":
                out.texture = texture.get("file") or ""
        for prop in _best(variant.findall("props/prop")):
            props = out.props.setdefault(prop.get("attachpoint", ""), [])
            if prop.get("actor"):
                props.append(prop.get("actor", ""))
            else:
                props.clear()  # an empty prop takes away what stood there
        for animation in variant.iterfind("animations/animation"):
            if animation.get("file"):
                out.animations.append(((animation.get("name") or "").lower(), animation.get("file", "")))
        colour = _text(variant, "color").split()
        if len(colour) == 3:
            out.colour = tuple(int(c) / 255 for c in colour)

    def draw(self, path: str, rng: np.random.Generator, names: frozenset[str] = frozenset()) -> Actor | None:
        """One draw of the actor ``path`` (below ``art/actors``); None when there is no such file.

        A variant whose name is in ``names`` is chosen before chance has its say: a horse's mane follows the horse's gait.
        """
        root = self._actor(path)
        if root is None:
            return None
        out = Actor(material=_text(root, "material"))
        for group in root.findall("group"):
            variants = _best(group.findall("variant"))
            if not variants:
                continue
            chosen = self._choose(variants, rng, names)
            out.names |= {self._name(variants[chosen])}
            said = Actor()
            self._read_variant(variants[chosen], said)
            out.mesh = said.mesh or out.mesh
            out.texture = said.texture or out.texture
            out.colour = said.colour or out.colour
            out.props.update(said.props)  # a later group's word on a point replaces the earlier one
            out.animations = _merge(out.animations, said.animations)
        return out

    def _name(self, variant: ElementTree.Element) -> str:
        """The variant's name in lower case; its file's when it has none of its own."""
        name = variant.get("name")
        if not name and variant.get("file"):
            base = self._tree("variants/" + variant.get("file", ""))
            name = base.get("name") if base is not None else ""
        return (name or "").lower()

    def _choose(self, variants: list[ElementTree.Element], rng: np.random.Generator, wanted: frozenset[str]) -> int:
        """Number of the variant that is shown: one of a wanted name, else by frequency, else "idle", else the first."""
        names = [self._name(v) for v in variants]
        for i, name in enumerate(names):
            if name and name in wanted:
                return i
        weights = np.array([float(v.get("frequency") or 0) for v in variants])
        if weights.sum() > 0:
            return int(rng.choice(len(variants), p=weights / weights.sum()))
        return names.index("idle") if "idle" in names else 0


def _merge(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Animations of a later group replace those of the same name; duplicates go."""
    names = {name for name, _ in new}
    return list(dict.fromkeys([entry for entry in old if entry[0] not in names] + new))
