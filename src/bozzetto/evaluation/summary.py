"""From the results of single objects to means with confidence intervals, by source and over all sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.assets.splits import TRAIN
from .intervals import bootstrap
from .objects import Sample
from .run import ObjectResult

Values = dict[tuple[str, ...], list[float]]


def _values(results: Sequence[ObjectResult]) -> Values:
    """(task, camera set or "mesh", measure) -> one value per object."""
    out: Values = {}
    for r in results:
        for task, sets in r.scores.items():
            for name, measures in sets.items():
                for key, value in measures.items():
                    out.setdefault((task, name, key), []).append(value)
        for task, measures in r.meshes.items():
            for key, value in measures.items():
                out.setdefault((task, "mesh", key), []).append(value)
        out.setdefault(("baseline", "grid", "psnr"), []).append(r.white)
    return out


def _nested(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for (task, name, key), value in flat.items():
        out.setdefault(task, {}).setdefault(name, {})[key] = value
    return out


def summarise(results: Mapping[str, Sequence[ObjectResult]], samples: Sequence[Sample]) -> dict[str, Any]:
    """Plain numbers for the report.

    Returns:
        ``sources``: for each its title, the names of its objects, how many there were to draw from, and ``scores``: task ->
        camera set ("grid", "around", "inputs", "elevation_0", ...) or "mesh" -> measure -> {mean, low, high, count}.
        ``overall``: the same scores as the mean of the means of the held-out collections present (procedural objects and
        folders stand apart), or of the training collections where those were measured; ``label`` says which. "baseline" is an
        all-white picture.
    """
    sources, by_source = {}, {}
    for sample in samples:
        by_source[sample.name] = values = _values(results[sample.name])
        sources[sample.name] = {
            "title": sample.title,
            "origin": sample.origin,
            "split": sample.split,
            "available": sample.available,
            "objects": sample.names,
            "scores": _nested({k: bootstrap(v).as_dict() for k, v in values.items()}),
        }
    counted = {s.name: by_source[s.name] for s in samples if s.counts}
    keys = dict.fromkeys(k for v in counted.values() for k in v)
    overall = {k: bootstrap({n: v[k] for n, v in counted.items() if k in v}).as_dict() for k in keys}
    trained = any(s.split == TRAIN for s in samples)
    label = f"mean of the {'training sources, not held out' if trained else 'held-out sources'}"
    return {"sources": sources, "overall": {"sources": list(counted), "label": label, "scores": _nested(overall)}}
