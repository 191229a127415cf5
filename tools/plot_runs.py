"""Draw columns of training logs as curves in an SVG file.

python tools/plot_runs.py runs/*/log.csv -o curves.svg --column psnr depth

Each log is a colour, each column a panel; values are averaged over ``--smooth`` rows. The horizontal axis is the column
``--by`` (step, or seconds for runs at equal time).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
WIDTH, HEIGHT, MARGIN, GAP = 430, 260, 52, 26


def read(path: Path, by: str, column: str, smooth: int) -> list[tuple[float, float]]:
    """Points (by, mean of ``smooth`` values of the column up to there) of a log, its first row left out.

    Where the axis falls back, as seconds do when an old run was resumed, what follows is put behind what was.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r.get(by) and r.get(column)][1:]
    values = [float(r[column]) for r in rows]
    means = [sum(values[max(0, i + 1 - smooth) : i + 1]) / min(i + 1, smooth) for i in range(len(values))]
    axis, last, ended = [], 0.0, 0.0
    for value in (float(r[by]) for r in rows):
        ended += last if value < last else 0.0
        axis.append(ended + value)
        last = value
    return list(zip(axis, means))[smooth - 1 :]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two values."""
    span = max(high - low, 1e-12)
    step = 10.0 ** len(str(int(1 / span))) / 10 if span < 1 else 10.0 ** len(str(int(span)))
    step = min(
        (step * f for f in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001)), key=lambda s: abs(span / s - count)
    )
    first = -(-low // step)
    return [round((first + i) * step, 10) for i in range(count * 3) if (first + i) * step <= high]


def panel(curves: list[list[tuple[float, float]]], left: int, title: str, by: str) -> list[str]:
    """One set of axes with all curves."""
    xs, ys = ([p[i] for c in curves for p in c] for i in (0, 1))
    x0, x1, y0, y1 = min(0, *xs), max(xs), min(ys), max(ys)
    pad = 0.05 * (y1 - y0) or 1.0
    y0, y1 = y0 - pad, y1 + pad

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + MARGIN + (x - x0) / (x1 - x0) * (WIDTH - MARGIN),
            GAP + (1 - (y - y0) / (y1 - y0)) * (HEIGHT - GAP),
        )

    out = [f'<text x="{left + MARGIN}" y="16" font-weight="bold">{title}</text>']
    for y in ticks(y0, y1):
        a, b = at(x0, y), at(x1, y)
        out.append(f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{a[0] - 6:.1f}" y="{a[1] + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in ticks(x0, x1):
        a = at(x, y0)
        out.append(f'<text x="{a[0]:.1f}" y="{HEIGHT + 16}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{left + (WIDTH + MARGIN) / 2}" y="{HEIGHT + 32}" text-anchor="middle">{by}</text>')
    for curve, colour in zip(curves, COLOURS * len(curves)):
        points = " ".join("{:.1f},{:.1f}".format(*at(*p)) for p in curve)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--column", nargs="+", default=["psnr", "depth"])
    parser.add_argument("--by", default="step")
    parser.add_argument("--smooth", type=int, default=5)
    parser.add_argument("--names", nargs="+", help="what to call the logs (their folders)")
    options = parser.parse_args()
    names = options.names or [p.parent.name if p.stem == "log" else p.stem for p in options.logs]
    body = []
    for k, column in enumerate(options.column):
        curves = [read(p, options.by, column, options.smooth) for p in options.logs]
        body += panel([c for c in curves if c], k * (WIDTH + GAP), column, options.by)
    for k, name in enumerate(names):
        y = HEIGHT + 52 + 16 * k
        line = f'x1="{MARGIN}" y1="{y - 4}" x2="{MARGIN + 22}" y2="{y - 4}" stroke="{COLOURS[k % len(COLOURS)]}"'
        body.append(f'<line {line} stroke-width="3"/>')
        body.append(f'<text x="{MARGIN + 30}" y="{y}">{name}</text>')
    width, height = len(options.column) * (WIDTH + GAP) + 8, HEIGHT + 60 + 16 * len(names)
    text = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">'
    options.output.write_text(
        "\n".join([text, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>"]) + "\n"
    )


if __name__ == "__main__":
    main()
