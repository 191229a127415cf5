"""What to type on a machine that has a network, and where to put the files on one that has none."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .entry import WeightsEntry, WeightsFile

FOLDER = "weights"  # name of the folder in the commands; users carry it over and point BOZZETTO_WEIGHTS at it


def fetch_commands(entry: WeightsEntry, files: Sequence[WeightsFile] | None = None) -> list[str]:
    """Shell commands that fetch the entry's files (or only ``files``) into the folder ``weights``, each on one line.

    What they leave is laid out as ``BOZZETTO_WEIGHTS`` wants it. A broken-off command goes on where it stopped.
    """
    wanted = [f for f in (entry.files if files is None else files) if not f.optional]
    if entry.bundled:
        return []
    if entry.url:
        return [
            shlex.join(
                [
                    "curl",
                    "-fL",
                    "-C",
                    "-",
                    "--create-dirs",
                    "-o",
                    f"{FOLDER}/{entry.folder}/{f.path}",
                    entry.url + f.path,
                ]
            )
            for f in wanted
        ]
    command = ["hf", "download", str(entry.repo), *(f.path for f in wanted)]
    if entry.repo_type != "model":
        command += ["--repo-type", entry.repo_type]
    if entry.revision:
        command += ["--revision", entry.revision]
    return [shlex.join([*command, "--local-dir", f"{FOLDER}/{entry.folder}"])]


def how_to_fetch(entry: WeightsEntry, files: Sequence[WeightsFile] | None = None) -> str:
    """The commands with what to do around them, several lines of text."""
    commands = fetch_commands(entry, files)
    tool = "" if entry.url else " (`pip install huggingface_hub` brings hf)"
    lines = "\n".join(f"  {command}" for command in commands)
    return (
        f"Or run on another machine{tool}\n{lines}\n"
        f"then copy the folder {FOLDER} to this one and set BOZZETTO_WEIGHTS to its path. "
        "`bozzetto models` lists what else is missing."
    )
