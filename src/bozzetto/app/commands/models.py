"""List the models and their weights: what they take, what is on this machine, size, memory, licence.

With names of models or weights, everything about those, and how to get them onto a machine without a network.
Weights are looked for in the folder BOZZETTO_WEIGHTS (laid out as owner/repo/file), then in the caches.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..progress import Progress, human_size

if TYPE_CHECKING:
    from ...pipelines import Pipeline
    from ...zoo import WeightsEntry

EXAMPLES = (
    "bozzetto models",
    "bozzetto models l4gm",
    "bozzetto models --download lgm triposr",
    "bozzetto models --verify",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="models or weights to tell everything about")
    parser.add_argument("--download", nargs="+", metavar="NAME", help="fetch the weights of these models (or weights)")
    parser.add_argument(
        "--verify", nargs="*", metavar="NAME", help="compare what is here with the published sizes and hashes"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, progress: Progress) -> int | None:
    """Print the lists (also with --quiet: they are what was asked for), fetch weights, or verify them."""
    from ...errors import InputError

    chosen = [o for o in (options.names, options.download, options.verify) if o]
    if (options.download is not None and options.verify is not None) or len(chosen) > 1:
        raise InputError("give names once: to tell about them, behind --download, or behind --verify")
    if options.download is not None:
        return _download(_entries(options.download), progress)
    if options.verify is not None:
        return _verify(_entries(options.verify), bool(options.verify), progress, options.json)
    progress.clear()
    if options.json:
        print(json.dumps(_as_json(options.names), indent=2))
    elif options.names:
        for i, name in enumerate(options.names):
            print(("\n" if i else "") + "\n".join(_details(name)))
    else:
        print("\n".join(_lists()))
    return None


def _entries(names: Iterable[str]) -> list[WeightsEntry]:
    """The weights that the names (of models or weights) stand for, each once; all for no names."""
    from ...zoo import ENTRIES

    found: dict[str, WeightsEntry] = {}
    for name in names:
        pipeline, entry = _find(name)
        wanted = [entry.name] if entry is not None else _weights_of(pipeline)
        found |= {n: ENTRIES[n] for n in wanted}
    return list(found.values()) or list(ENTRIES.values())


def _weights_of(pipeline: Pipeline | None) -> list[str]:
    """Names of all the weights that a model needs for its inputs, in order of use."""
    weights = {} if pipeline is None else pipeline.weights
    return list(dict.fromkeys(name for names in weights.values() for name in names))


def _find(name: str) -> tuple[Pipeline | None, WeightsEntry | None]:
    """The model and the weights of that name; where both exist (lgm-mini), both."""
    from ...errors import UnknownModelError
    from ...pipelines import PIPELINES
    from ...zoo import ENTRIES

    if name not in PIPELINES and name not in ENTRIES:
        raise UnknownModelError(f"unknown name {name!r}; models: {', '.join(PIPELINES)}; weights: {', '.join(ENTRIES)}")
    return PIPELINES.get(name), ENTRIES.get(name)


# ---- lists


def _lists() -> list[str]:
    """The two tables: models, and weights."""
    from ...pipelines import PIPELINES
    from ...zoo import ENTRIES
    from ...zoo.local import look

    models = [("MODEL", "TAKES", "STATE", "WHAT IT DOES")]
    for p in PIPELINES.values():
        missing = sum(_to_fetch(n) for n in _weights_of(p))
        state = f"lacks {_about(missing)}" if missing else "ready"
        models.append((p.name, ", ".join(p.inputs), state, p.summary))
    weights = [("WEIGHTS", "STATE", "SIZE", "MEMORY", "LICENCE")]
    for e in ENTRIES.values():
        weights.append((e.name, look(e).state, _size(e), _memory(e), _licence(e)))
    return [
        *_table(models),
        "",
        *_table(weights, right=(2, 3)),
        "",
        "memory: of the parameters on a GPU; activations come on top.  more: bozzetto models NAME",
        "fetch: bozzetto models --download NAME",
    ]


def _table(rows: Sequence[Sequence[str]], right: tuple[int, ...] = ()) -> list[str]:
    """Aligned columns; the last is wrapped so that no line is wider than the terminal."""
    import textwrap

    columns = len(rows[0])
    widths = [max(len(row[i]) for row in rows) for i in range(columns - 1)]
    indent = sum(widths) + 2 * (columns - 1)
    room = max(shutil.get_terminal_size((100, 24)).columns - indent, 24)
    lines = []
    for row in rows:
        head = "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths)))
        tail = textwrap.wrap(row[-1], room) or [""]
        lines.append(f"{head}  {tail[0]}".rstrip())
        lines += [" " * indent + line for line in tail[1:]]
    return lines


def _about(size: int) -> str:
    return human_size(size)


def _size(entry: WeightsEntry) -> str:
    """Bytes of the entry's files, with a tilde where they are not exactly known."""
    return human_size(entry.size) if entry.size is not None else f"~{human_size(entry.bytes_to_fetch)}"


def _memory(entry: WeightsEntry) -> str:
    return "?" if entry.memory is None else human_size(entry.memory)


def _licence(entry: WeightsEntry) -> str:
    """The licence, with a word of warning where it matters."""
    return entry.licence + (" (not for commercial use)" if entry.terms.startswith("not for commercial") else "")


def _to_fetch(name: str) -> int:
    """Bytes of the weights that are not on this machine, roughly."""
    from ...zoo import find_entry
    from ...zoo.local import look

    return sum(f.size or f.about or 0 for f in look(find_entry(name)).missing)


# ---- details


def _details(name: str) -> list[str]:
    """Everything about one name, as lines."""
    pipeline, entry = _find(name)
    lines = _model_details(pipeline) if pipeline is not None else []
    if entry is not None:
        lines += ([""] if lines else []) + _weights_details(entry)
    return lines


def _model_details(pipeline: Pipeline) -> list[str]:
    from ...errors import MissingDependencyError
    from ...zoo import ENTRIES
    from ...zoo.local import look

    lines = [f"{pipeline.name}: {pipeline.summary}"]
    if pipeline.extra:
        try:
            pipeline.check_extra()
            lines.append(f"packages   those of the extra {pipeline.extra} are installed")
        except MissingDependencyError as error:
            lines.append(f"packages   {error}")
    for kind, names in pipeline.weights.items():
        lines.append(f"{kind:9s}  {', '.join(names)}")
    for name, asked in pipeline.alternatives.items():
        lines.append(f"instead    {name} with {asked}")
    lines.append("")
    entries = [ENTRIES[n] for n in _weights_of(pipeline)]
    rows = [("WEIGHTS", "STATE", "SIZE", "MEMORY", "LICENCE")]
    rows += [(e.name, look(e).state, _size(e), _memory(e), _licence(e)) for e in entries]
    lines += _table(rows, right=(2, 3))
    missing = sum(_to_fetch(e.name) for e in entries)
    if missing:
        lines += ["", f"fetch the {_about(missing)} that are not here:  bozzetto models --download {pipeline.name}"]
        lines += _offline(entries)
    return lines


def _offline(entries: Iterable[WeightsEntry]) -> list[str]:
    """How to bring over what is missing from a machine with a network."""
    from ...zoo.local import look
    from ...zoo.offline import FOLDER, fetch_commands

    lines = []
    for entry in entries:
        present = look(entry)
        if not present.complete:
            lines += [f"  {command}" for command in fetch_commands(entry, present.missing)]
    if lines:
        lines.insert(0, "or, on another machine:")
        lines.append(f"then copy the folder {FOLDER} here and set BOZZETTO_WEIGHTS to its path")
    return lines


def _weights_details(entry: WeightsEntry) -> list[str]:
    from ...zoo.local import look

    present = look(entry)
    lines = [
        f"{entry.name}: {entry.summary}",
        f"licence    {entry.licence}: {entry.terms}",
        f"source     {entry.source}",
    ]
    if entry.revision:
        lines.append(f"revision   {entry.revision}")
    if entry.parameters is not None and entry.memory is not None:
        lines.append(
            f"memory     {human_size(entry.memory)} for {entry.parameters / 1e6:,.1f} M parameters in {entry.dtype} on a GPU; "
            "activations come on top"
        )
    lines.append(f"state      {present.state}" + (f" in {present.folder}" if present.folder else ""))
    lines.append("")
    rows = [("FILE", "STATE", "SIZE", "SHA256")]
    for f in entry.files:
        here = present.folder is not None and (present.folder / f.path).is_file()
        size = human_size(f.size) if f.size is not None else f"~{human_size(f.about)}" if f.about else "?"
        state = "here" if here else "missing" if not f.optional else "not needed"
        rows.append((f.path, state, size, f.sha256[:16] if f.sha256 else "not known"))
    lines += _table(rows, right=(2,))
    if not present.complete and not entry.bundled:
        lines += ["", f"fetch:  bozzetto models --download {entry.name}", *_offline([entry])]
    return lines


# ---- fetching and verifying


def _download(entries: list[WeightsEntry], progress: Progress) -> None:
    """Fetch what is missing of the entries, and print where each lies."""
    from ...zoo import locate
    from ...zoo.local import look

    for entry in entries:
        if not look(entry).complete:
            progress.say(f"{entry.name}: {_size(entry)} from {entry.source}; {entry.licence}: {entry.terms}")
        path = locate(entry.name, progress=progress)
        progress.summary([path])


def _verify(entries: list[WeightsEntry], named: bool, progress: Progress, as_json: bool) -> int:
    """Hash what is here; one line an entry. Returns 2 if something is damaged, or was named and is not complete."""
    from ...errors import CheckpointError
    from ...zoo.local import check_one, look

    code, results = 0, {}
    for entry in entries:
        present = look(entry)
        if not present.complete:
            if not named and present.folder is None:
                continue
            code = 2
            results[entry.name] = "not here" if present.folder is None else f"lacks {present.missing[0].path}"
        else:
            folder, unknown = present.folder, 0
            try:
                for f in entry.files:
                    if folder is not None and (folder / f.path).is_file():
                        place = folder / f.path
                        tell = lambda done, total, n=entry.name: progress(f"verifying {n}", done / max(total, 1))  # noqa: E731
                        check_one(entry, f, place, tell=tell)
                        unknown += f.sha256 is None
                results[entry.name] = "ok" + (
                    f" ({unknown} of {len(entry.files)} files have no published hash)" if unknown else ""
                )
            except CheckpointError as error:
                code, results[entry.name] = 2, str(error)
        progress.clear()
        if not as_json:
            stream = sys.stdout if results[entry.name].startswith("ok") else sys.stderr
            print(f"{entry.name}: {results[entry.name]}", file=stream)
    if as_json:
        print(json.dumps(results, indent=2))
    return code


# ---- JSON


def _as_json(names: Sequence[str]) -> dict[str, Any]:
    """Models and weights as plain values; with names only those (and a named model's weights)."""
    from ...pipelines import PIPELINES
    from ...zoo import ENTRIES

    models = [_find(n)[0] for n in names] if names else list(PIPELINES.values())
    entries = _entries(names) if names else list(ENTRIES.values())
    return {
        "models": [
            {
                "name": p.name,
                "summary": p.summary,
                "weights": {kind: list(w) for kind, w in p.weights.items()},
                "alternatives": p.alternatives,
                "extra": p.extra,
                "bytes_missing": sum(_to_fetch(n) for n in _weights_of(p)),
            }
            for p in models
            if p is not None
        ],
        "weights": [_weights_json(e) for e in entries],
    }


def _weights_json(entry: WeightsEntry) -> dict[str, Any]:
    from ...zoo.local import look
    from ...zoo.offline import fetch_commands

    present = look(entry)
    return {
        "name": entry.name,
        "summary": entry.summary,
        "state": present.state,
        "path": None if present.path is None else str(present.path),
        "size": entry.size,
        "memory": entry.memory,
        "parameters": entry.parameters,
        "licence": entry.licence,
        "terms": entry.terms,
        "source": entry.source,
        "revision": entry.revision,
        "files": [
            {"path": f.path, "size": f.size, "about": f.about, "sha256": f.sha256, "optional": f.optional}
            for f in entry.files
        ],
        "fetch": fetch_commands(entry, present.missing) if not present.complete else [],
    }
