"""A local stand-in for the Hugging Face hub's upload interface: a new repository and a commit.

It asks for every file to be sent inside the commit, so that large-file storage is not covered.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def serve_uploads() -> Iterator[tuple[str, dict[str, str]]]:
    """Its address, and the body of each call by path, with the last call's "token"."""
    received: dict[str, str] = {}
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"received": received})
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: dict[str, str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name = self.path.removeprefix("/api/").partition("?")[0]
        self.received[name] = body
        self.received["token"] = self.headers["Authorization"]
        answer: dict[str, Any] = {}
        if name == "repos/create":
            answer = {"url": f"http://{self.headers['Host']}/me/words"}
        elif name.endswith("/preupload/main"):
            files = [f["path"] for f in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            answer = {"files": [{"path": path, **modes} for path in files]}
        elif name.endswith("/commit/main"):
            url = f"http://{self.headers['Host']}/me/words/commit/1"
            answer = {"commitUrl": url, "commitOid": "1"}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's stderr."""
