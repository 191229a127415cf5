"""A run on several machines, as docs/training.md says it, with the machines played by two torchruns on this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from straight_line import COMMAND, rows, state


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_two_machines_train_together(tmp_path):
    port = free_port()

    def machine(number: int, steps: int) -> subprocess.Popen:
        where = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"]
        where += ["--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "bozzetto"]
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                *where,
                *COMMAND,
                "-o",
                str(tmp_path),
                "--steps",
                str(steps),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    for steps in (2, 3):  # the second time from the first one's checkpoint
        both = [machine(k, steps) for k in (0, 1)]
        try:
            said = [one.communicate(timeout=400) for one in both]
        finally:
            for one in both:
                one.kill()
        assert [one.returncode for one in both] == [0, 0], said[0][1][-2000:] + said[1][1][-2000:]
        assert "step" in said[0][0] and "step" not in said[1][0]  # the first one speaks and writes
        assert state(tmp_path)["step"] == steps
    assert [int(row["step"]) for row in rows(tmp_path / "log.csv")][-1] == 3
