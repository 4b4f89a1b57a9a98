"""A local stand-in for the Hugging Face hub's HTTP interface, for tests of the hub path.

It serves repositories held in memory: what `huggingface_hub`, `transformers` and `datasets` ask for
when a model or a dataset is loaded (metadata, file lists, files with ETag and commit), and answers
anything else with the hub's "not found". Point a process at it with `HF_ENDPOINT=hub.url`.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = hashlib.sha1(b"the only commit").hexdigest()
RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)")
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+?)"
    r"(?:/(?P<call>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?"
)


@dataclass
class Hub:
    """The repositories by `models/OWNER/NAME` or `datasets/OWNER/NAME`, and what was asked for."""

    repositories: dict[str, dict[str, bytes]]
    url: str = ""
    requests: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)  # part of an address -> how it fails
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """The hub on a free port of this machine, until the end of the `with` block."""
    hub = Hub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def folder_files(folder: Path) -> dict[str, bytes]:
    """A folder's files as a repository."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"  # connections stay open, as the client libraries expect

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's stderr; `hub.requests` has every request."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(unquote(self.path))
        self.hub.requests.append(f"{self.command} {self.path}")
        for part, fault in list(self.hub.faults.items()):
            if part in self.path:
                self._fail(fault)
                return
        if match := RESOLVE.fullmatch(url.path):
            kind = "datasets" if match["kind"] else "models"
            self._send_file(f"{kind}/{match['repo']}", match["path"])
        elif match := API.fullmatch(url.path):
            self._send_info(match, parse_qs(url.query), body)
        else:
            self._not_found("EntryNotFound")

    def _fail(self, fault: str) -> None:
        """Never answer, a byte at a time without end, or with an error of the server."""
        if fault == "silent":
            self.hub.closing.wait()
            self.close_connection = True
        elif fault == "drip":
            self.close_connection = True
            with suppress(OSError):  # when the other side has gone
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not self.hub.closing.wait(0.2):
                    self.wfile.write(b"x")
        else:
            self._send(int(fault), b"", {})

    def _send_file(self, repository: str, path: str) -> None:
        files = self.hub.repositories.get(repository)
        if files is None:
            self._not_found("RepoNotFound")
        elif path not in files:
            self._not_found("EntryNotFound")
        else:
            content = files[path]
            self._send(200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT})

    def _send_info(self, match: re.Match[str], query: dict[str, list[str]], body: bytes) -> None:
        files = self.hub.repositories.get(f"{match['kind']}/{match['repo']}")
        if files is None:
            self._not_found("RepoNotFound")
            return
        if match["call"] == "tree":
            recursive = query.get("recursive", ["false"])[0].lower() == "true"
            entries = _tree(files, match["path"] or "", recursive)
            if not entries:
                self._not_found("EntryNotFound")
                return
            self._send_json(entries)
        elif match["call"] == "paths-info":
            asked = parse_qs(body.decode())["paths"]
            self._send_json([_entry(files, path) for path in asked if path in files])
        else:
            siblings = [{"rfilename": path} for path in files]
            self._send_json({"id": match["repo"], "sha": COMMIT, "siblings": siblings})

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _not_found(self, code: str) -> None:
        self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _entry(files: dict[str, bytes], path: str) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(files[path]), "oid": _oid(files[path])}


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The files below a folder and the folders between, as the hub lists them."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path in files:
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            name = prefix + "/".join(parts[:depth])
            if recursive or depth == 1:
                entries[name] = {"type": "directory", "path": name, "size": 0, "oid": _oid(b"")}
        if recursive or len(parts) == 1:
            entries[path] = _entry(files, path)
    return list(entries.values())
