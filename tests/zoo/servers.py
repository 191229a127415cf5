"""HTTP servers on loopback: one with byte ranges that can be told to misbehave, and one that speaks like the hub."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """What a server serves, and how badly.

    Attributes:
        files: path (with its slash) -> content.
        ranges: whether ``Range`` is understood.
        cut: bytes after which each of the next ``cuts`` answers breaks off.
        statuses: path -> HTTP status to answer with instead.
        error_codes: path -> what the hub calls that error.
        asked: (method, path, Range header) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cut: int | None = None
    cuts: int = 0
    statuses: dict[str, list[int]] = field(default_factory=dict)
    error_codes: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve() -> Iterator[Behaviour]:
    """A running server; ``url`` is its address without a slash at the end."""
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            asked = self.headers.get("Range")
            behaviour.asked.append((self.command, path, asked))
            refused = behaviour.statuses.get(path)
            content = behaviour.files.get(path)
            if refused or content is None:
                self.send_response(refused.pop(0) if refused else 404)
                if "/resolve/" in path:
                    self.send_header("X-Error-Code", behaviour.error_codes.get(path, "EntryNotFound"))
                    self.send_header("X-Error-Message", "Entry not found")
                    self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first, whole = 0, len(content)
            if asked and behaviour.ranges:
                first = int(asked.removeprefix("bytes=").split("-")[0])
                if first >= whole:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{whole}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(whole - first))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes" if behaviour.ranges else "none")
            self.end_headers()
            if not body:
                return
            rest = content[first:]
            if behaviour.cut is not None and behaviour.cuts > 0 and len(rest) > behaviour.cut:
                behaviour.cuts -= 1
                self.wfile.write(rest[: behaviour.cut])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(rest)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    behaviour.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield behaviour
    finally:
        server.shutdown()
        server.server_close()
