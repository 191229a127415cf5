"""Download by HTTP: resumed, verified, whole or absent."""

from __future__ import annotations

import errno
import hashlib

import pytest
from servers import serve

from bozzetto.errors import CheckpointError, OutputError
from bozzetto.zoo import fetch as module
from bozzetto.zoo.fetch import FetchError, fetch

CONTENT = bytes(range(256)) * 12_000  # 3 MB, three blocks
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serve() as behaviour:
        behaviour.files["/w.pt"] = CONTENT
        yield behaviour


def get(server, target, **options):
    fetch(f"{server.url}/w.pt", target, **{"sha256": HASH, "pause": 0.0, "timeout": 5.0} | options)


def test_a_file_is_fetched_and_verified(server, tmp_path):
    told = []
    get(server, tmp_path / "a" / "w.pt", size=len(CONTENT), tell=lambda done, fresh: told.append((done, fresh)))
    assert (tmp_path / "a" / "w.pt").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["w.pt"]
    assert told[-1][0] == sum(fresh for _, fresh in told) == len(CONTENT)


def test_broken_connections_are_taken_up_where_they_broke(server, tmp_path):
    server.cut, server.cuts = 1_000_000, 3
    get(server, tmp_path / "w.pt", retries=1)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert [r for _, _, r in server.asked] == [None, "bytes=1000000-", "bytes=2000000-", "bytes=3000000-"]


def test_a_stopped_program_goes_on_next_time(server, tmp_path):
    def stop(done, fresh):
        if done > 1_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path / "w.pt", tell=stop)
    have = (tmp_path / "w.pt.part").stat().st_size
    assert 1_500_000 < have < len(CONTENT) and not (tmp_path / "w.pt").exists()
    told = []
    get(server, tmp_path / "w.pt", tell=lambda done, fresh: told.append((done, fresh)))
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert server.asked[-1][2] == f"bytes={have}-" and told[0] == (have, 0)


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "w.pt.part").write_bytes(CONTENT[:1000])
    get(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [0, 7])
def test_what_an_earlier_attempt_left_may_be_the_whole_or_too_much(extra, server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(CONTENT + b"x" * extra)
    get(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_wrong_beginning_is_found_by_the_hash_and_removed(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(b"x" * 1000)
    with pytest.raises(CheckpointError, match="sha256"):
        get(server, tmp_path / "w.pt")
    assert list(tmp_path.iterdir()) == []
    get(server, tmp_path / "w.pt")


def test_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    with pytest.raises(CheckpointError, match=r"has 3,072,000 bytes now, the published file has 5"):
        get(server, tmp_path / "w.pt", size=5)


def test_statuses(server, tmp_path):
    server.statuses["/w.pt"] = [503, 429]  # twice busy, then well
    get(server, tmp_path / "w.pt")
    server.statuses["/w.pt"] = [403]
    with pytest.raises(FetchError, match="403"):
        get(server, tmp_path / "v.pt")
    assert len(server.asked) == 4


def test_no_network(tmp_path):
    with pytest.raises(FetchError, match=r"refused|Connection"):
        fetch("http://127.0.0.1:9/w.pt", tmp_path / "w.pt", retries=2, pause=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_always_breaks_off_is_given_up(server, tmp_path):
    server.cut, server.cuts = 0, 99
    with pytest.raises(FetchError, match="early"):
        get(server, tmp_path / "w.pt", retries=3)
    assert len(server.asked) == 3


def test_a_place_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        get(server, tmp_path / "file" / "w.pt")
    assert server.asked == []


def test_a_full_disk_keeps_what_came(server, tmp_path, monkeypatch):
    opened = module.Path.open

    class Full:
        def __init__(self, file):
            self.file, self.blocks = file, 0

        def write(self, block):
            self.blocks += 1
            if self.blocks == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.file.write(block)

        def flush(self):
            self.file.flush()

        def close(self):
            self.file.close()

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.close()

    with monkeypatch.context() as patch:
        patch.setattr(module.Path, "open", lambda self, *a: Full(opened(self, *a)))
        with pytest.raises(OutputError, match="disk is full"):
            get(server, tmp_path / "w.pt")
    assert 0 < (tmp_path / "w.pt.part").stat().st_size < len(CONTENT)
    get(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
