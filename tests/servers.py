"""Servers on 127.0.0.1, both with faults to order: files over HTTP with ranges, and a proxy before another server."""

import contextlib
import http.client
import os
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

FAULTS = ("reset", "503", "short", "slow", "truncated", "429")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def name(self) -> str:
        return f"{self.method} {self.path} {self.headers.get('range', '')}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


class Server:
    """Answers on a port of its own until it is closed.

    Args:
        answer: what a good server says.
        faults: kinds of fault; a request meets ``times`` of them, each the next in turn, before it is answered well.
        only: the requests that meet faults, a pattern of ``METHOD PATH RANGE``.
    """

    def __init__(
        self, answer: Callable[[Request], Answer], faults: Sequence[str] = (), times: int = 2, only: str = ".*"
    ) -> None:
        self.answer, self.faults, self.times, self.only = answer, faults, times, only
        self.requests: Counter[str] = Counter()
        self.met: Counter[str] = Counter()  # faults by kind
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"owner": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, request: Request) -> str:
        """The fault that a request meets, "" for none."""
        with self._lock:
            self.requests[request.name] += 1
            if not self.faults or self.requests[request.name] > self.times or not re.search(self.only, request.name):
                return ""
            kind = self.faults[self.met.total() % len(self.faults)]
            self.met[kind] += 1
            return kind

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(
    answer: Callable[[Request], Answer], faults: Sequence[str] = (), times: int = 2, only: str = ".*"
) -> Iterator[Server]:
    server = Server(answer, faults, times, only)
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        kind = self.owner.fault(request)
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif kind.isdecimal():
            self._send(Answer(int(kind)))
        else:
            self._send(self.owner.answer(request), kind)

    do_HEAD = do_PUT = do_POST = do_GET

    def _send(self, answer: Answer, kind: str = "") -> None:
        content = answer.content
        if kind == "short" and answer.status == 206:
            content = content[: len(content) // 2]
        self.send_response(answer.status)
        length = answer.headers.get("Content-Length", str(len(content)))
        for name, value in ({**answer.headers, "Content-Length": length}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(content) // 2
        with contextlib.suppress(OSError):  # the client may be gone
            self.wfile.write(content[:half])
            if kind in ("slow", "stalled"):
                self.wfile.flush()
                time.sleep(0.2 if kind == "slow" else 30)
            if kind == "truncated":
                self.close_connection = True
            else:
                self.wfile.write(content[half:])

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the tests look at ``Server.requests``."""


def files(directory: Path, *, forbidden: str = "$.", ranges: bool = True) -> Callable[[Request], Answer]:
    """Answers with the files below a directory; 403 for paths that match ``forbidden``."""

    def answer(request: Request) -> Answer:
        path = directory / unquote(request.path.partition("?")[0]).lstrip("/")
        if re.search(forbidden, request.path):
            return Answer(403)
        if not path.is_file():
            return Answer(404)
        status = path.stat()
        facts = {"ETag": f'"{status.st_mtime_ns}-{status.st_size}"', "Last-Modified": formatdate(status.st_mtime)}
        if request.method == "HEAD":
            return Answer(200, {**facts, "Content-Length": str(status.st_size)})
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if not (found and ranges):
            return Answer(200, facts, path.read_bytes())
        first, last = int(found[1]), min(int(found[2]), status.st_size - 1)
        if first > last:
            return Answer(416, {"Content-Range": f"bytes */{status.st_size}"})
        with open(path, "rb") as stream:
            content = os.pread(stream.fileno(), last - first + 1, first)
        return Answer(206, {**facts, "Content-Range": f"bytes {first}-{last}/{status.st_size}"}, content)

    return answer


def proxy(host: str, port: int) -> Callable[[Request], Answer]:
    """Answers as another server does."""

    def answer(request: Request) -> Answer:
        connection = http.client.HTTPConnection(host, port, timeout=30)
        connection.request(request.method, request.path, request.body, request.headers)
        response = connection.getresponse()
        content = response.read()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
        if request.method != "HEAD":
            kept.pop("Content-Length", None)
        connection.close()
        return Answer(response.status, kept, content)

    return answer


_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "date", "server")
