"""A hub on loopback: the endpoints of the Hugging Face hub that its client uses, and faults on request.

Weights are stored as the hub stores them: `resolve` redirects to another host, with the SHA-256 and the size
in its headers. There is no Xet here, so everything is plain HTTP.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import mmap
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = (".safetensors", ".bin", ".ckpt", ".msgpack", ".onnx", ".png", ".onnx_data")


@dataclass
class Repository:
    """A repository: its files, whether it is gated, its revisions."""

    folder: Path
    gated: bool = False
    revisions: tuple[str, ...] = ("main", COMMIT)

    @property
    def names(self) -> list[str]:
        """The paths of the files inside the repository."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)


@dataclass(frozen=True)
class Request:
    """One request as the server saw it."""

    method: str
    path: str
    status: int
    start: int = 0
    token: bool = False
    """Whether it came with a token."""


@dataclass
class Faults:
    """Faults of the server: each entry happens once, in this order."""

    cuts: dict[str, list[int]] = field(default_factory=dict)
    """File -> number of bytes after which the connection of each answer ends; it is reset if negative."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next requests."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of these answers."""
    corrupted: dict[str, int] = field(default_factory=dict)
    """File -> number of answers in which one byte is wrong."""


class Hub:
    """The server: ``repositories`` by name, ``moved`` from old names to new ones, and all ``requests``."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.ranges = True
        self.repositories: dict[str, Repository] = {}
        self.moved: dict[str, str] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self._servers = [_Server(("127.0.0.1", 0), _Handler, hub=self) for _ in range(2)]
        self.url, self.store = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        for server in self._servers:
            if certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*certificate)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop answering: connections are refused from now on."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, name: str, folder: Path) -> None:
        """Serve a repository; its checksums are computed now, so that no client waits for them."""
        self.repositories[name] = Repository(folder)
        for path in folder.rglob("*"):
            if path.is_file():
                digest_of(path)

    def forget(self) -> None:
        """Clear the requests and the faults."""
        self.requests, self.faults, self.ranges = [], Faults(), True

    def downloaded(self) -> dict[str, set[str]]:
        """Return repository -> files whose content was sent."""
        files: dict[str, set[str]] = {}
        for request in self.requests:
            match = re.match(r"/(?:store/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", request.path)
            if match and request.method == "GET" and request.status in (200, 206):
                files.setdefault(match[1], set()).add(match[2])
        return files

    def starts(self, name: str) -> list[int]:
        """Return the first byte of each answer that sent a file."""
        sent = [r for r in self.requests if r.method == "GET" and r.status in (200, 206)]
        return [request.start for request in sent if request.path.endswith(f"/{name}")]


def _mapped(path: Path) -> memoryview:
    """Return a file's content without reading it into memory."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@contextlib.contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[Hub]:
    """Run a hub within the context; with a certificate and its key it uses TLS."""
    hub = Hub(certificate)
    try:
        yield hub
    finally:
        hub.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: Any, hub: Hub) -> None:
        self.hub = hub
        super().__init__(*args)

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that disconnect."""


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, computed once."""
    return _digest(path, path.stat().st_mtime_ns)


@functools.cache
def _digest(path: Path, _changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Log nothing; `Hub.requests` holds the requests."""

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def do_CONNECT(self) -> None:
        """Act as a proxy that refuses every connection."""
        self._send(407, b"proxy authentication required")

    def _respond(self) -> None:
        hub = self.server.hub
        with hub.lock:
            status = hub.faults.statuses.pop(0) if hub.faults.statuses and self.path != "/" else 0
        if status:
            return self._send(status, b"a fault", hub.faults.headers)
        if self.path == "/":
            return self._send(200, b"a hub")
        pattern = r"/api/models/([^/]+/[^/?]+)(?:/(revision|tree)/([^/?]+)(/[^?]+)?)?(\?.*)?"
        if match := re.fullmatch(pattern, self.path):
            if match[4]:  # no repository has one of the folders that the libraries list
                return self._refuse(404, "EntryNotFound")
            return self._model(match[1], match[2], match[3] or "main")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)", self.path):
            return self._resolve(match[1], match[2], match[3])
        if match := re.fullmatch(r"/store/([^/]+/[^/]+)/resolve/[^/]+/([^?]+)", self.path):
            return self._content(hub.repositories[match[1]].folder, match[2], {})
        return self._send(404, b"no such page")

    def _model(self, name: str, kind: str | None, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if kind == "tree":
            entries = [{"type": "file", "path": n, "oid": "0", "size": 1} for n in repository.names]
            return self._send(200, json.dumps(entries).encode())
        listed = {
            "id": name,
            "sha": COMMIT,
            "gated": "manual" if repository.gated else False,
            "siblings": [{"rfilename": n} for n in repository.names],
        }
        return self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if repository.gated:
            return self._refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
        path = repository.folder / file
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": COMMIT})
        digest = digest_of(path)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest[:40]}"'}
        if not path.name.endswith(_LARGE):
            return self._content(repository.folder, file, headers)
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(path.stat().st_size)}
        place = {"Location": f"{self.server.hub.store}/store{self.path}"}
        return self._send(302, b"", {**headers, **linked, **place})

    def _repository(self, name: str, revision: str) -> Repository | None:
        """Return the repository, or None after an error was sent."""
        hub = self.server.hub
        if name in hub.moved:
            self._send(307, b"", {"Location": self.path.replace(name, hub.moved[name])})
        elif name not in hub.repositories:
            self._refuse(401, "RepoNotFound")
        elif revision not in hub.repositories[name].revisions:
            self._refuse(404, "RevisionNotFound")
        else:
            return hub.repositories[name]
        return None

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"refused", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _content(self, folder: Path, name: str, headers: dict[str, str]) -> None:
        """Send a file, or the requested range of it, with the server's faults."""
        content = _mapped(folder / name)
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "") if self.server.hub.ranges else "")
        start = int(match[1]) if match else 0
        headers = {**headers, "Accept-Ranges": "bytes"}
        if match:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if match else 200, content[start:], headers, name=name, start=start)

    def _send(
        self,
        status: int,
        body: bytes | memoryview,
        headers: dict[str, str] | None = None,
        name: str = "",
        start: int = 0,
    ) -> None:
        hub = self.server.hub
        token = "Authorization" in self.headers
        hub.requests.append(Request(self.command, self.path, status, start, token))
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with hub.lock:
            cuts = hub.faults.cuts.get(name)
            cut = cuts.pop(0) if cuts else None
            if hub.faults.corrupted.get(name, 0) > 0:
                hub.faults.corrupted[name] -= 1
                body = bytes(body[:-1]) + bytes([body[-1] ^ 1])
        self.wfile.write(body if cut is None else body[: abs(cut)])
        if cut is not None:
            self._break_off(reset=cut < 0)

    def _break_off(self, *, reset: bool) -> None:
        self.wfile.flush()
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
