"""Which objects may be trained on. The rules are frozen: what is held out here has never been trained on.

Whole collections, one author's library, two civilisations and a list of animals are held out, always by group (one mesh, one
character), so that no shape stands on both sides. Objects under the GPL are never trained on, whatever their collection:
weights that were made from them could not be published under the licence of the others.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..sources.licences import requires_gpl
from .source_object import SourceObject

TRAIN, VALIDATION, TEST, UNUSED = "train", "val", "test", "unused"
SPLITS = (TRAIN, VALIDATION, TEST, UNUSED)
_VALIDATION_SHARE, _TEST_SHARE = 0.02, 0.05  # of the groups in users' own folders

# Collections that are held out whole.
HELD_OUT_SOURCES = frozenset({"ufoai", "openarena", "flightgear_ai", "flightgear_models"})
# Collections whose other objects are trained on.
TRAINING_SOURCES = frozenset({"sweethome3d", "zeroad", "supertuxkart", "megaglest", "infinigen"})

# 0 A.D.: these animals by mesh, and every mesh of two peoples.
HELD_OUT_ANIMALS = ("rhino", "giraffe_adult", "giraffe_infant", "tiger", "peacock", "walrus", "croc", "zebra", "pony")
_ANIMAL_WORDS = ("rhino", "giraffe", "tiger", "peacock", "walrus", "croc", "zebra", "pony")
_ANIMAL_MESH = rf"(^|/)({'|'.join(HELD_OUT_ANIMALS)})(\.dae)?$"
_PEOPLES_MESH = r"(^|/)(maur|kush)[^/]*$"

# Others who wear or are built with meshes of the two peoples: elephants' towers, hair, shields on a tent.
_WEARERS = (
    r"units/(persians|ptolemies|seleucids)/elephantry_c_[^/]*$",
    r"units/ptolemies/(female_citizen|hero_infantry_archer_cleopatra)$",
    r"props/units/heads/(new/)?head_(female_maur|kush|maur|ptol_cleopatra|ptol_fem|indian_a)[^/]*$",
    r"props/units/kush_hero_elephantry_[^/]*$",
    r"structures/tent_kush$",
)


@dataclass(frozen=True)
class Rule:
    """Objects of ``source`` whose ``field`` ("name" or "group") matches ``pattern`` go to ``split``, because of ``why``."""

    source: str
    field: str
    pattern: re.Pattern[str]
    split: str
    why: str


def _rule(source: str, field: str, pattern: str, why: str, split: str = TEST) -> Rule:
    return Rule(source, field, re.compile(pattern, re.IGNORECASE), split, why)


# The first rule that matches decides.
RULES = (
    _rule("sweethome3d", "name", r"^KatorLegaz/", "one author, another style"),
    _rule("zeroad", "group", _ANIMAL_MESH, "animals by mesh"),
    _rule("zeroad", "group", _PEOPLES_MESH, "meshes of two peoples"),
    # A building of theirs made of another people's mesh: on neither side.
    _rule("zeroad", "name", r"(^|/)structures/(mauryas|kushites)(/|_)", "another people's mesh", UNUSED),
    # The look of a held-out animal on a mesh that is trained on (a zebra's skin on a horse): on neither side.
    _rule(
        "zeroad", "name", rf"(^|/)fauna/.*({'|'.join(_ANIMAL_WORDS)})", "a held-out animal on another's mesh", UNUSED
    ),
    # Built into a train object: chariots drawn by ponies; what ponies wear, which moves with their clips; soldiers who carry
    # the two peoples' gear. (An object that is read today tells its meshes, see object_split; packed ones do not.)
    _rule("zeroad", "name", r"(^|/)britons/(hero_)?chariot_javelinist_[^/]*_m$", "two ponies draw it", UNUSED),
    _rule("zeroad", "name", r"(^|/)props/horse/([^/]*_)?pony(_|$)", "moves with a pony's clips", UNUSED),
    _rule("zeroad", "name", r"(^|/)units/(mauryas|kushites)/", "most wear held-out gear", UNUSED),
    _rule("zeroad", "name", rf"(^|/)({'|'.join(_WEARERS)})", "wears held-out gear", UNUSED),
    # The same mesh stands elsewhere in the collection under the GPL.
    _rule("supertuxkart", "name", r"/stklib_(steamengine|sagebrush)", "its twin is under the GPL", UNUSED),
)


def is_gpl(licence: str) -> bool:
    """Whether a licence is of the GPL family (GPL, LGPL, AGPL), or offers nothing but it ("GPL-2+ or CC0" does)."""
    if requires_gpl(licence):  # expressions with AND and brackets
        return True
    choices = re.split(r"(?<![-\w])or(?!\s+later)(?![-\w])", licence, flags=re.IGNORECASE)
    return bool(licence) and all(re.search(r"\b[LA]?GPL|GNU|General Public", c, re.IGNORECASE) for c in choices)


def hashed_split(source: str, group: str) -> str:
    """The split of a group in a user's own folder: 93 % train, 2 % val, 5 % test, the same on every machine, forever."""
    digest = hashlib.sha256(f"{source}\0{group}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < _TEST_SHARE:
        return TEST
    return VALIDATION if place < _TEST_SHARE + _VALIDATION_SHARE else TRAIN


def is_known(source: str) -> bool:
    """Whether a collection has rules of its own; others (users' folders) are split by :func:`hashed_split`."""
    return source in HELD_OUT_SOURCES or source in TRAINING_SOURCES


def split_of(source: str, name: str, group: str, licence: str) -> str:
    """Where an object belongs: "train", "val", "test" or "unused" (neither trained on nor measured with)."""
    if source in HELD_OUT_SOURCES or is_gpl(licence):
        return TEST
    values = {"name": name, "group": group}
    for rule in RULES:
        if rule.source == source and rule.pattern.search(values[rule.field]):
            return rule.split
    if source in TRAINING_SOURCES:
        return TRAIN if licence else UNUSED  # a known collection's object without a licence
    return hashed_split(source, group)


def object_split(obj: SourceObject) -> str:
    """:func:`split_of` an object; "unused" for what would be trained on and has a held-out mesh of 0 A.D. built in."""
    split = split_of(obj.source, obj.name, obj.group, obj.licence)
    if obj.source != "zeroad" or split != TRAIN:
        return split
    held = any(re.search(p, mesh, re.IGNORECASE) for p in (_ANIMAL_MESH, _PEOPLES_MESH) for mesh in obj.meshes)
    return UNUSED if held else split
