"""Licences of single files from a Debian copyright file (machine-readable format 1.0)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SPDX = {
    "CC0": "CC0-1.0",
    "GPL": "GPL-2+",
    "PD": "public-domain",
    "Public-Domain": "public-domain",
    "public-domain": "public-domain",
}


@dataclass(frozen=True)
class FileLicence:
    """An expression of licence names with AND and OR ("CC-BY-SA-3.0 OR GPL-2+"), and who made the file."""

    licence: str
    authors: tuple[str, ...]


def licence_expression(text: str) -> str:
    """A "License:" line with SPDX-like names and operators in capitals."""
    terms = [t.strip(" ,") for t in re.split(r"\s+(and(?:/or)?|or)\s+", text.strip(), flags=re.I)]
    out = []
    for term in terms:
        operator = {"and": "AND", "or": "OR", "and/or": "OR"}.get(term.lower())
        out.append(operator or SPDX.get(term, term.replace(" ", "-")))
    return " ".join(out)


def join_licences(licences: Iterable[str]) -> str:
    """All of ``licences`` at once: what a thing made of several files is under."""
    distinct = sorted({x for x in licences if x})
    return " AND ".join(f"({x})" if " OR " in x and len(distinct) > 1 else x for x in distinct)


def licence_terms(expression: str) -> list[list[list[str]]]:
    """An expression taken apart: all of the terms are needed, of a term one option, of an option all names.

    "A AND (B OR C)" -> [[["A"]], [["B"], ["C"]]]. Without brackets every AND parts two terms.
    """
    terms = []
    for term in re.split(r"\s+AND\s+(?![^(]*\))", expression.strip(), flags=re.I):
        options = [x.strip(" ()") for x in re.split(r"\s+OR\s+", term.strip(" ()"), flags=re.I)]
        terms.append([[x.strip(" ()") for x in re.split(r"\s+AND\s+", o, flags=re.I)] for o in options if o])
    return [t for t in terms if t]


def requires_gpl(licence: str) -> bool:
    """Whether no reading of the expression avoids a GNU licence (GPL, LGPL, AGPL)."""
    return any(all(any("GPL" in x for x in option) for option in term) for term in licence_terms(licence))


def _authors(text: str) -> tuple[str, ...]:
    """Names of a "Copyright:" field, without years and addresses."""
    names = []
    for line in text.splitlines():
        name = re.sub(r"<[^>]*>|\(c\)|©|\bcopyright\b:?", "", line, flags=re.I)
        name = re.sub(r"^[\s\d?,\-–]*(?=\D)", "", name.strip()).strip(" .,;")
        if name and "Not Applicable" not in name:
            names.append(name)
    return tuple(dict.fromkeys(names))


class CopyrightFile:
    """Which licence each file of a package is under; the last paragraph that matches a file's path counts."""

    def __init__(self, text: str) -> None:
        self._exact: dict[str, tuple[int, FileLicence]] = {}
        self._globs: list[tuple[int, re.Pattern[str], FileLicence]] = []
        for number, paragraph in enumerate(re.split(r"\n[ \t]*\n", text)):
            fields = dict(re.findall(r"^(\S+):((?:.*(?:\n[ \t].*)*))", paragraph, re.M))
            if "Files" not in fields or "License" not in fields:
                continue
            lines = fields["License"].strip().splitlines()
            found = FileLicence(licence_expression(lines[0] if lines else ""), _authors(fields.get("Copyright", "")))
            for pattern in fields["Files"].split():
                if any(c in pattern for c in "*?"):
                    self._globs.append((number, re.compile(fnmatch.translate(pattern)), found))
                else:
                    self._exact[pattern] = (number, found)

    @classmethod
    def read(cls, path: Path) -> CopyrightFile:
        """Parse ``path``; a missing file knows no licences."""
        return cls(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "")

    def of(self, path: str) -> FileLicence | None:
        """The licence of ``path`` (relative to the source package), or None when no paragraph covers it."""
        best = self._exact.get(path, (-1, None))
        for number, pattern, found in reversed(self._globs):
            if number < best[0]:
                break
            if pattern.match(path):
                return found
        return best[1]

    def of_all(self, paths: Iterable[str]) -> tuple[str, str]:
        """Joined licence and authors ("A; B") of a thing made of several files."""
        found = [x for x in map(self.of, paths) if x is not None]
        authors = dict.fromkeys(name for x in found for name in x.authors)
        return join_licences(x.licence for x in found), "; ".join(authors)
