"""Progress on a terminal: one line on standard error, redrawn in place; silent when standard error is not a terminal."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

BAR = 24  # characters
REDRAW = 0.1  # seconds between redraws of one stage
ESTIMATE_AFTER = 5.0  # seconds of a stage from which the time that is left is told


class Progress:
    """Callable as ``progress(stage, share)``. Results go to standard output through :meth:`summary`."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.live = enabled and sys.stderr.isatty()
        self._stage, self._drawn, self._shown = "", 0.0, False
        self._kind, self._since, self._first = (
            "",
            0.0,
            0.0,
        )  # stage without its numbers, and when and where it was first told

    def __call__(self, stage: str, share: float) -> None:
        """Redraw the line: ``stage`` with a bar of ``share`` (0..1), or without a bar at 0."""
        if not self.live:
            return
        now = time.monotonic()
        if stage == self._stage and now - self._drawn < REDRAW and share < 1:
            return
        self._stage, self._drawn, self._shown = stage, now, True
        filled = round(BAR * min(max(share, 0.0), 1.0))
        line = f"{'█' * filled}{'·' * (BAR - filled)} {stage}" if share > 0 else f"{' ' * BAR} {stage} …"
        line += self._left(stage, share, now)
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r\x1b[2K" + line[:width])
        sys.stderr.flush()

    def _left(self, stage: str, share: float, now: float) -> str:
        """ ", 2:30 left" once a stage has run for a while; how long it went on so far says how long it will."""
        kind = re.split(r"[\d,:]", stage, maxsplit=1)[0]
        if kind != self._kind or share < self._first:
            self._kind, self._since, self._first = kind, now, share
        seconds, done = now - self._since, share - self._first
        if seconds < ESTIMATE_AFTER or done <= 0 or share >= 1:
            return ""
        left = round(seconds * (1 - share) / done)
        hours, minutes = divmod(left // 60, 60)
        return f", {hours}:{minutes:02d} h left" if hours else f", {minutes}:{left % 60:02d} min left"

    def clear(self) -> None:
        """Remove the progress line."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False

    def say(self, text: str) -> None:
        """A line for a person, on standard error; nothing when quiet or piped."""
        self.clear()
        if self.live:
            print(text, file=sys.stderr)

    def result(self, text: str) -> None:
        """A line of the command's result, on standard output; nothing when quiet."""
        self.clear()
        if self.enabled:
            print(text)

    def summary(self, paths: Iterable[Path]) -> None:
        """The files written, one a line on standard output, with their sizes on a terminal."""
        self.clear()
        if not self.enabled:
            return
        for path in paths:
            path = Path(path)
            if sys.stdout.isatty():
                print(f"{path}  {human_size(path.stat().st_size)}" if path.is_file() else f"{path}/")
            else:
                print(path)


def human_size(size: int) -> str:
    """Bytes as "1.2 MB"."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
