"""Any stream of objects -> shards in a dataset folder, with what was refused and why."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from ...errors import BozzettoError, InputError
from ...files.atomic import atomic_write_text, output_folder
from .catalogue import ATTRIBUTION, CATALOGUE, VERSION, attribution, read_catalogue
from .checks import RefusedError
from .pack import EncodedObject, PackOptions, encode_object, write_object
from .pictures import PictureCache
from .shard import SUFFIX, Shard, write_shard
from .source_object import SourceObject
from .splits import is_known, split_of

SHARD_BYTES = 256 << 20
READERS = "bozzetto.data.sources"  # what readers log is kept with what is refused
Tell = Callable[[str, float], None]


class Task(Protocol):
    """Something that becomes an object when a worker loads it."""

    name: str

    def load(self) -> SourceObject: ...


@dataclass
class Report:
    """What came of one source: objects kept, reasons of refusal with their counts, bytes of its shards."""

    source: str
    objects: int
    refused: dict[str, int]
    bytes: int


_cache: dict[PackOptions, PictureCache] = {}


def _work(task: SourceObject | Task, options: PackOptions, turn: float) -> tuple[str, EncodedObject | str]:
    """(name, encoded object or the reason why not)."""
    if options not in _cache:
        _cache.clear()
        _cache[options] = PictureCache(options.texture_size, options.texture_quality)
    try:
        obj = task if isinstance(task, SourceObject) else task.load()
        return obj.name, encode_object(obj, options, turn, _cache[options])
    except RefusedError as reason:
        return task.name, str(reason)
    except (BozzettoError, MemoryError) as problem:
        return task.name, f"cannot be read: {problem or 'not enough memory'}"
    except Exception as problem:  # one odd file of thousands must not end the conversion
        return task.name, f"cannot be read: {type(problem).__name__}: {problem}"


def _results(
    tasks: Iterable[SourceObject | Task], options: PackOptions, turn: float, workers: int
) -> Iterator[tuple[str, EncodedObject | str]]:
    """Results in the order of ``tasks``, made by ``workers`` processes (0: this one)."""
    if workers <= 0:
        for task in tasks:
            yield _work(task, options, turn)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(_work, task, options, turn))
                if len(waiting) >= 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as problem:
            raise InputError(
                "a worker process was ended from outside (out of memory?); use fewer --workers"
            ) from problem


class _Notes(logging.Handler):
    """Collects what readers log about objects that they leave out."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _reader_notes() -> Iterator[list[str]]:
    """The lines that readers log within the block."""
    notes, logger = _Notes(), logging.getLogger(READERS)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield notes.lines
    finally:
        logger.removeHandler(notes)
        logger.setLevel(level)
        logger.propagate = propagate


def reason_kind(reason: str) -> str:
    """A reason without its particulars, for counting."""
    return re.split(r"[:;(]", reason, maxsplit=1)[0].strip()


def refused_name(source: str) -> str:
    """The file in a dataset folder that says what of a source was refused, and why: a JSON object a line."""
    return f"{source}-refused.jsonl"


def _join(encoded: EncodedObject, groups: dict[str, str]) -> None:
    """Put an object into the group of the first one of its shape; ``groups`` remembers shape -> group."""
    record = encoded.record
    record["group"] = groups.setdefault(encoded.shape, record["group"])
    record["split"] = split_of(record["source"], record["name"], record["group"], record["licence"])


def convert(
    source: str,
    tasks: Iterable[SourceObject | Task],
    folder: str | PathLike[str],
    options: PackOptions | None = None,
    *,
    turn: float = 0.0,
    total: int | None = None,
    workers: int = 0,
    shard_bytes: int = SHARD_BYTES,
    origin: dict[str, Any] | None = None,
    tell: Tell | None = None,
) -> Report:
    """Pack a source into ``folder`` (made, or extended); a source of the same name is replaced. All or nothing.

    Of users' folders objects of the same triangles (one mesh in several colours) join the group of the first of them, so that
    no mesh stands on both sides of a split.

    Written: ``<source>-00000.assets`` and so on, ``<source>-refused.jsonl``, ``dataset.json``, ``ATTRIBUTION.md``.

    Args:
        tasks: objects, or things that load into one in a worker.
        turn: degrees about y that bring the source's fronts to +z.
        total: how many tasks there are, for progress.
        workers: processes that load and encode; 0 for none.
        shard_bytes: a new shard is begun after so many bytes.
        origin: what the source was made from (packages and versions), kept in the catalogue.

    Raises:
        InputError: no object was fit (the reasons are in the message), ``source`` cannot name files, or ``turn`` is no
            number. OutputError: the folder cannot be written.
    """
    options, tell, folder = options or PackOptions(), tell or (lambda what, share: None), Path(folder)
    if not math.isfinite(turn):
        raise InputError(f"the turn must be a number of degrees, not {turn}")
    if not re.fullmatch(r"\w[\w.-]*", source):
        raise InputError(
            f"{source!r} cannot name a source, whose files are called by it: letters, digits, _, - and . only"
        )
    refused: list[dict[str, str]] = []
    seen: dict[str, str] = {}
    groups: dict[str, str] = {}
    shards: list[str] = []
    with output_folder(folder) as work:
        with _reader_notes() as notes, ExitStack() as stack:
            writer = None
            for count, (name, result) in enumerate(_results(tasks, options, turn, workers), 1):
                tell(f"converting {source}: {count:,} objects", count / total if total else 0.0)
                if isinstance(result, EncodedObject) and result.record["digest"] in seen:
                    result = f"duplicate: the same as {seen[result.record['digest']]}"
                if isinstance(result, str):
                    refused.append({"name": name, "reason": result})
                    continue
                seen[result.record["digest"]] = name
                if not is_known(source):
                    _join(result, groups)
                if writer is None or writer.size >= shard_bytes:
                    stack.close()
                    shards.append(f"{source}-{len(shards):05d}{SUFFIX}")
                    writer = stack.enter_context(write_shard(work / shards[-1]))
                write_object(writer, result)
        refused += [{"name": "", "reason": f"left out by the reader: {line}"} for line in notes]
        kinds = dict(Counter(reason_kind(r["reason"]) for r in refused).most_common())
        if not shards:
            why = ", ".join(f"{k} ({n})" for k, n in kinds.items()) or "there are no objects"
            example = f"; the first: {refused[0]['name']} {refused[0]['reason']}" if refused else ""
            raise InputError(f"nothing of {source} can be used: {why}{example}")
        lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in refused]
        (work / refused_name(source)).write_text("".join(lines), encoding="utf-8")
        opened = [Shard(work / name) for name in shards]
        records = [r for s in opened for r in s.records]
        size = sum(s.path.stat().st_size for s in opened)
        entry = {
            "shards": shards,
            "objects": len(records),
            "clips": sum(len(r["clips"]) for r in records),
            "bytes": size,
            "licences": dict(Counter(r["licence"] or "not stated" for r in records).most_common()),
            "splits": dict(Counter(r["split"] for r in records).most_common()),
            "refused": kinds,
            "options": asdict(options),
            "origin": origin or {},
        }
    catalogue = read_catalogue(folder) if (folder / CATALOGUE).is_file() else {"version": VERSION, "sources": {}}
    old = catalogue["sources"].get(source, {}).get("shards", [])
    catalogue["sources"][source] = entry
    rest = [Shard(folder / s) for n, e in catalogue["sources"].items() if n != source for s in e["shards"]]
    atomic_write_text(folder / ATTRIBUTION, attribution([r for s in rest for r in s.records] + records))
    # Last: until it names them, new shards are not part of the dataset.
    atomic_write_text(folder / CATALOGUE, json.dumps(catalogue, indent=1, ensure_ascii=False) + "\n")
    for name in set(old) - set(shards):
        (folder / name).unlink(missing_ok=True)
    return Report(source, len(records), kinds, size)
