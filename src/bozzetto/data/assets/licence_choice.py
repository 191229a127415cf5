"""Objects chosen by their licence, so that a model can be trained on nothing that asks for more than its maker wants to give.

``clean`` stands for the licences under which a model's weights may be given away without a share-alike or copyleft question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import InputError
from ..sources.licences import licence_terms

CLEAN = "clean"
_CLEAN = re.compile(
    r"CC0(-1\.0)?|public-domain|CC-BY-[1-4]\.[05](-(?!SA|NC|ND)[A-Z]{2,3})?|MIT|Expat|ISC|zlib|0BSD|BSD-[23]-Clause|Apache-2\.0",
    re.IGNORECASE,
)


def parse_licences(text: str) -> tuple[str, ...]:
    """``"CC0-1.0,CC-BY-3.0"`` -> names. Raises :class:`InputError` where there is none."""
    names = tuple(dict.fromkeys(x.strip() for x in text.split(",") if x.strip()))
    if not names:
        raise InputError(f"--licences {text!r}: write licence names with commas between them, or {CLEAN}")
    return names


def permits(expression: str, licences: Sequence[str]) -> bool:
    """Whether an object can be used under ``licences`` alone (names, or "clean"); one of no stated licence never can.

    Of "A AND (B OR C)" A must be among them, and B or C.
    """
    terms = licence_terms(expression)
    return bool(terms) and all(any(all(_named(x, licences) for x in both) for both in term) for term in terms)


def _named(licence: str, licences: Sequence[str]) -> bool:
    names = {name.lower() for name in licences}
    return licence.lower() in names or (CLEAN in names and _CLEAN.fullmatch(licence) is not None)


def check_licences(licences: Sequence[str], expressions: Sequence[str]) -> None:
    """Raise :class:`InputError` for a name that no object is under, with the names that there are."""
    there = {x for e in expressions for term in licence_terms(e) for both in term for x in both}
    known = {x.lower() for x in there} | {CLEAN}
    if unknown := [x for x in licences if x.lower() not in known]:
        raise InputError(
            f"no object is under {', '.join(unknown)}; there are: {', '.join(sorted(there)) or 'none stated'}; or {CLEAN}"
        )
