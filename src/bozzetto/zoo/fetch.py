"""Download one file by HTTP: resumed from what an earlier attempt left, verified, and moved into place whole."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointError
from ..files.atomic import output_error
from .local import sha256_of

_BLOCK = 1 << 20
_BREAKS = (OSError, http.client.HTTPException, EOFError)  # of the network; those of the disk are OutputErrors by then
_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses worth another try

Tell = Callable[[int, int], None]  # (bytes of the file that are there, how many of them are new)


class FetchError(Exception):
    """The file could not be fetched: no network, or the server refuses. What did come is kept for the next attempt."""


def fetch(
    url: str,
    target: Path,
    size: int | None = None,
    sha256: str | None = None,
    tell: Tell | None = None,
    *,
    timeout: float = 30.0,
    retries: int = 5,
    pause: float = 1.0,
) -> None:
    """Fetch ``url`` into the file ``target``, which appears only when it is whole and verified.

    What has come lies in ``target`` + ".part" and is kept when the connection breaks or the program is stopped; the next
    call asks the server for the rest (HTTP Range), and starts anew where the server cannot do that.

    Args:
        size, sha256: of the file, None where unknown.
        timeout: seconds without an answer or a byte after which a connection counts as broken.
        retries: attempts in a row that bring nothing before giving up. pause: seconds before the first of them, doubling.

    Raises:
        FetchError: see there. OutputError: the file cannot be written. CheckpointError: the file is not the one wanted.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab"):
            pass
    except OSError as error:
        raise output_error(target, error) from error
    try:
        _fetch_part(url, part, size, tell, timeout, retries, pause)
    except FetchError:
        if part.stat().st_size == 0:
            part.unlink()
        raise
    _verify(part, url, size, sha256)
    try:
        os.replace(part, target)
    except OSError as error:
        raise output_error(target, error) from error


def _fetch_part(
    url: str, part: Path, size: int | None, tell: Tell | None, timeout: float, retries: int, pause: float
) -> None:
    """Connect as often as it takes until ``part`` is as long as the file; see :func:`fetch`."""
    failures = 0
    while True:
        before = part.stat().st_size
        try:
            total = _attempt(url, part, size, tell, timeout)
        except _BREAKS as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _AGAIN:
                raise FetchError(f"the server answers {error.code} {error.reason}") from error
            failures = 0 if part.stat().st_size > before else failures + 1
            if failures >= retries:
                reason = getattr(error, "reason", None) or error
                raise FetchError(str(reason) or type(error).__name__) from error
            time.sleep(min(pause * 2**failures, 30.0))
            continue
        if total is None or part.stat().st_size >= total:
            return
        failures = 0 if part.stat().st_size > before else failures + 1  # the server closed the connection early
        if failures >= retries:
            raise FetchError("the server ends the transfer early")


def _attempt(url: str, part: Path, size: int | None, tell: Tell | None, timeout: float) -> int | None:
    """One connection: append to ``part`` what is missing. Returns the whole file's size if the server tells it."""
    have = part.stat().st_size
    if size is not None and have == size:
        return size
    headers = {"User-Agent": "bozzetto", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        known = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if known and int(known[1]) == have:
            return have  # all of it is there
        _truncate(part)  # it is not the beginning of this file
        return _attempt(url, part, size, tell, timeout)
    with answer:
        if have and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            _truncate(part)  # the server sends the file from its beginning
            have = 0
        rest = answer.headers.get("Content-Length")
        total = have + int(rest) if rest else None
        if size is not None and total is not None and total != size:
            raise CheckpointError(f"{url} has {total:,} bytes now, the published file has {size:,}; it was replaced")
        if tell is not None:
            tell(have, 0)
        _append(answer, part, have, tell)
    return total


def _append(answer: http.client.HTTPResponse, part: Path, have: int, tell: Tell | None) -> None:
    """Write what the connection brings behind what is there."""
    try:
        out = part.open("ab")
    except OSError as error:
        raise output_error(part, error) from error
    with contextlib.closing(out):
        while block := answer.read(_BLOCK):
            try:
                out.write(block)
                out.flush()
            except OSError as error:
                raise output_error(part, error) from error
            have += len(block)
            if tell is not None:
                tell(have, len(block))


def _truncate(part: Path) -> None:
    try:
        os.truncate(part, 0)
    except OSError as error:
        raise output_error(part, error) from error


def _verify(part: Path, url: str, size: int | None, sha256: str | None) -> None:
    """Raise :class:`CheckpointError`, and remove what came, if it is not the file wanted."""
    came = part.stat().st_size
    wrong = None
    if size is not None and came != size:
        wrong = f"{came:,} bytes came, the published file has {size:,}"
    elif sha256 is not None and sha256_of(part) != sha256:
        wrong = "its sha256 is not that of the published file"
    if wrong is not None:
        with contextlib.suppress(OSError):
            part.unlink()
        raise CheckpointError(
            f"what {url} sent is not the file wanted: {wrong}. Try again; if it stays so, the file was replaced there"
        )
