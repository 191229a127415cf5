"""A process whose hub is a server of ours (HF_ENDPOINT counts at import only): runs `bozzetto` commands read from stdin."""

from __future__ import annotations

import contextlib
import io
import json
import sys


def main() -> None:
    """For each line {"argv": [...], "entries": [...], "pipelines": {...}}: run it, answer {"code", "out", "err"}."""
    from bozzetto.app.cli import main as bozzetto
    from bozzetto.zoo import ENTRIES, WeightsEntry, WeightsFile

    answers = sys.stdout
    for line in sys.stdin:
        task = json.loads(line)
        ENTRIES.clear()
        for values in task["entries"]:
            files = tuple(WeightsFile(**f) for f in values.pop("files"))
            entry = WeightsEntry(**{"system": "lgm", "licence": "MIT", "summary": "a test"} | values, files=files)
            ENTRIES[entry.name] = entry
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = bozzetto(task["argv"])
            except SystemExit as stop:
                code = stop.code
        print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
