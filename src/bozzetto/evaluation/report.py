"""report.json, and report.html that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.assets.splits import TRAIN
from ..files.atomic import output_folder
from .protocol import GRID_ELEVATIONS, elevation_set
from .run import ObjectResult
from .sheet import source_sheet

# Measure -> (heading, decimals); what is not named here is only in report.json.
_PICTURES = {
    "psnr": ("PSNR dB", 2),
    "foreground": ("PSNR foreground dB", 2),
    "ssim": ("SSIM", 4),
    "perceptual": ("perceptual", 4),
}
_MESHES = {
    "chamfer": ("Chamfer", 4),
    "aligned_chamfer": ("Chamfer aligned", 4),
    "aligned_f_score_0.01": ("F 0.01", 3),
    "aligned_f_score_0.02": ("F 0.02", 3),
    "aligned_f_score_0.05": ("F 0.05", 3),
    "aligned_normal_consistency": ("normals", 3),
    "watertight": ("watertight", 2),
    "texture_psnr": ("texture PSNR dB", 2),
    "faces": ("faces", 0),
    "seconds": ("seconds", 1),
    "failed": ("failed", 2),
}
# Of the overview: camera set or "mesh", measure, heading, decimals.
_FIRST = (
    ("grid", "psnr", "PSNR dB", 2),
    ("grid", "foreground", "foreground dB", 2),
    ("mesh", "aligned_chamfer", "Chamfer aligned", 4),
    ("mesh", "aligned_f_score_0.02", "F 0.02", 3),
)
_SETS = {"grid": "grid of 64, inputs left out", "around": "16 all around", "inputs": "the input views"}
# Of the tables by elevation: camera set -> heading.
BY_ELEVATION = {elevation_set(e): f"{e:g}°" for e in GRID_ELEVATIONS} | {"around": "around"}
_TRAINED = "These objects are of the training split: they are <b>not held out</b>, and a network may have been trained on them."
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1300px;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:.6rem 0 1.4rem}th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}th{vertical-align:bottom}
small{color:#777;white-space:nowrap}img{max-width:100%;border:1px solid #ddd}
details{margin:.5rem 0}h2{margin-top:2.2rem}.wide{overflow-x:auto}
"""


def plain(value: Any) -> Any:
    """Numbers that JSON has no word for (NaN, infinity) become None."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report(
    folder: str | Path,
    about: Mapping[str, Any],
    summary: Mapping[str, Any],
    results: Mapping[str, Sequence[ObjectResult]],
) -> list[Path]:
    """Write ``report.json``, ``report.html`` and ``<source>.png`` into ``folder``, all or none; returns their paths.

    Args:
        about: protocol, model, settings, versions; plain values.
        summary: of :func:`summary.summarise`.
    """
    names = ["report.json", "report.html"]
    objects = {source: [r.as_dict() for r in rs] for source, rs in results.items()}
    pictures = {}
    for source, rs in results.items():
        sheet = source_sheet(rs, list(rs[0].scores)) if rs else None
        if sheet is not None:
            pictures[source] = _png(sheet)
            names.append(f"{source}.png")
    with output_folder(folder) as work:
        content = plain({**about, **summary, "per_object": objects})
        (work / "report.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (work / "report.html").write_text(page(about, summary, results, pictures), encoding="utf-8")
        for source, data in pictures.items():
            (work / f"{source}.png").write_bytes(data)
    return [Path(folder) / n for n in names]


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", optimize=True)
    return out.getvalue()


def _cell(interval: Mapping[str, float] | None, decimals: int) -> str:
    if not interval or not interval["count"]:
        return "<td>–</td>"
    low, high = (f"{interval[k]:.{decimals}f}" for k in ("low", "high"))
    return f"<td>{interval['mean']:.{decimals}f}<br><small>{low} … {high}</small></td>"


def _table(rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, int]]) -> str:
    """``rows``: label -> measure -> interval; columns that no row has are left out."""
    used = {k: v for k, v in columns.items() if any(k in r for r in rows.values())}
    if not used:
        return ""
    head = "".join(f"<th>{title}</th>" for title, _ in used.values())
    body = "".join(
        f"<tr><td>{html.escape(label)}</td>{''.join(_cell(r.get(k), d) for k, (_, d) in used.items())}</tr>"
        for label, r in rows.items()
    )
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{body}</table></div>'


def _overview(summary: Mapping[str, Any]) -> str:
    """What is asked for first, a line for each source: PSNR of new views, meshes, and of how many objects."""
    scores, counts = _rows(summary), {n: len(s["objects"]) for n, s in summary["sources"].items()}
    counts[summary["overall"]["label"]] = sum(counts[n] for n in summary["overall"]["sources"])
    tasks = [t for t in dict.fromkeys(t for s in scores.values() for t in s) if t != "baseline"]
    columns = [(t, kind, *rest) for t in tasks for kind, *rest in _FIRST]
    columns = [c for c in columns if any(c[2] in s.get(c[0], {}).get(c[1], {}) for s in scores.values())]
    columns.append(("baseline", "grid", "psnr", "all white, PSNR dB", 2))
    head = "".join(
        f"<th>{html.escape(title if t == 'baseline' else f'{t}: {title}')}</th>" for t, _, _, title, _ in columns
    )
    body = ""
    for name, s in scores.items():
        cells = "".join(_cell(s.get(t, {}).get(kind, {}).get(key), d) for t, kind, key, _, d in columns)
        body += f"<tr><td>{html.escape(name)}</td><td>{counts[name]}</td>{cells}</tr>"
    return f'<div class="wide"><table><tr><th></th><th>objects</th>{head}</tr>{body}</table></div>'


def _rows(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Name of a row -> its scores: the sources, then their mean where there is one."""
    scores = {name: s["scores"] for name, s in summary["sources"].items()}
    overall = summary["overall"]
    return scores | ({overall["label"]: overall["scores"]} if overall["sources"] else {})


def _by_elevation(summary: Mapping[str, Any]) -> list[str]:
    """A heading, and for every task PSNR and foreground PSNR by elevation, sources as rows; nothing where there are none."""
    scores, out = _rows(summary), []
    for task in dict.fromkeys(t for s in scores.values() for t in s if t != "baseline"):
        for measure in ("psnr", "foreground"):
            heading, decimals = _PICTURES[measure]
            rows = {
                n: {kind: s[task][kind][measure] for kind in BY_ELEVATION if measure in s[task].get(kind, {})}
                for n, s in scores.items()
                if task in s
            }
            table = _table(rows, {kind: (title, decimals) for kind, title in BY_ELEVATION.items()})
            if table:
                out.append(f"<h3>{html.escape(task)}: {heading}</h3>{table}")
    said = "<h2>By elevation</h2><p>The grid's new views at each elevation of the camera, and the 16 all around.</p>"
    return [said, *out] if out else []


def _sections(summary: Mapping[str, Any]) -> list[str]:
    """One table for every task and camera set, sources as rows."""
    scores = _rows(summary)
    tasks = dict.fromkeys(t for s in scores.values() for t in s if t != "baseline")
    out = []
    for task in tasks:
        for kind, title in {**_SETS, "mesh": "meshes"}.items():
            rows = {n: s[task][kind] for n, s in scores.items() if kind in s.get(task, {})}
            table = _table(rows, _MESHES if kind == "mesh" else _PICTURES)
            if table:
                out.append(f"<h3>{html.escape(task)}: {html.escape(title)}</h3>{table}")
    white = {n: s["baseline"]["grid"] for n, s in scores.items() if "baseline" in s}
    out.append(f"<h3>an all-white picture, grid</h3>{_table(white, _PICTURES)}")
    return out


def _objects(results: Sequence[ObjectResult]) -> str:
    tasks = list(dict.fromkeys(t for r in results for t in r.scores))
    head = "".join(f"<th>{t} PSNR</th><th>{t} foreground</th>" for t in tasks)
    rows = ""
    for r in results:
        numbers = "".join(
            f"<td>{r.scores[t]['grid']['psnr']:.2f}</td><td>{r.scores[t]['grid']['foreground']:.2f}</td>" for t in tasks
        )
        rows += f"<tr><td>{html.escape(r.name)}<br><small>{html.escape(r.caption)}</small></td>{numbers}</tr>"
    return f"<table><tr><th>object</th>{head}</tr>{rows}</table>"


def page(
    about: Mapping[str, Any],
    summary: Mapping[str, Any],
    results: Mapping[str, Sequence[ObjectResult]],
    pictures: Mapping[str, bytes],
) -> str:
    """The report as one HTML page with its pictures inside."""
    said = "".join(
        f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(json.dumps(v) if isinstance(v, (dict, list)) else str(v))}</td></tr>"
        for k, v in about.items()
    )
    parts = [
        f"<h1>{html.escape(str(about.get('model', '')))}</h1>",
        f"<p>Protocol <b>{html.escape(str(about.get('protocol', '')))}</b>. Means over objects; below each its 95 % "
        "bootstrap interval.</p>",
        f"<p>{_TRAINED}</p>" if any(s["split"] == TRAIN for s in summary["sources"].values()) else "",
        "<h2>New views</h2>",
        _overview(summary),
        *_by_elevation(summary),
        "<h2>Best, median, worst</h2><p>By PSNR of the first task, from four new sides: the truth, then what was made. Numbers: "
        "PSNR of the grid, full frame / foreground.</p>",
    ]
    for source, rs in results.items():
        entry = summary["sources"][source]
        parts.append(
            f"<h3>{html.escape(entry['title'])}</h3><p>{len(rs)} of {entry['available']:,} objects ({entry['origin']}).</p>"
        )
        if source in pictures:
            coded = base64.b64encode(pictures[source]).decode()
            parts.append(f'<img alt="{html.escape(source)}" src="data:image/png;base64,{coded}">')
        parts.append(f"<details><summary>all objects</summary>{_objects(rs)}</details>")
    parts += ["<h2>All numbers</h2>", *_sections(summary), f"<h2>Run</h2><table>{said}</table>"]
    title = html.escape(f"{about.get('model', '')}: {about.get('protocol', '')}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )
