"""scripts/prepare_data.py against a local server in place of the real one."""

import hashlib
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dylora.errors import UserError

SCRIPT = Path(__file__).parents[1] / "scripts" / "prepare_data.py"
spec = importlib.util.spec_from_file_location("prepare_data", SCRIPT)
assert spec is not None and spec.loader is not None
prepare_data = importlib.util.module_from_spec(spec)
sys.modules["prepare_data"] = prepare_data  # dataclasses look their module up
spec.loader.exec_module(prepare_data)

NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once
TEXT = b"name : The Mill||The Mill is there .\n"
JSON = b"[]\n"


class Server:
    """Serves `files` by path and counts what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.promised = 0  # bytes announced beyond those sent, as when a connection breaks

    def __enter__(self) -> "Server":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                content = outer.files.get(self.path)
                self.send_response(404 if content is None else 200)
                size = 0 if content is None else len(content) + outer.promised
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    original = prepare_data.Original
    # `printf '[]\n' | git hash-object --stdin` is fe51488c7066f6687ef680d6bfaa4f7768ef205c
    table = {
        "e2e": [original("e2e/a.txt", "up/a.txt", hashlib.sha256(TEXT).hexdigest())],
        "dart": [original("dart/b.json", "up/b.json", blobs=("0000000000", "fe51488c70"))],
        "webnlg": [],
    }
    monkeypatch.setattr(prepare_data, "ORIGINALS", table)
    with Server() as server:
        server.files = {"/up/a.txt": TEXT, "/up/b.json": JSON}
        yield server


def run(tmp_path: Path, server: Server | str, task: str) -> int:
    mirror = server if isinstance(server, str) else server.url
    return prepare_data.main([f"task={task}", f"paths.data={tmp_path}", f"mirror={mirror}/"])


def test_fetches_all_files_once(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, server, "all") == 0
    assert (tmp_path / "e2e/a.txt").read_bytes() == TEXT
    assert (tmp_path / "dart/b.json").read_bytes() == JSON
    assert "CC BY-SA" in capsys.readouterr().out
    assert run(tmp_path, server, "all") == 0
    assert server.asked == ["/up/a.txt", "/up/b.json"], "verified files are not fetched again"


@pytest.mark.parametrize("task", ["e2e", "dart"])
def test_wrong_bytes_leave_nothing(
    tmp_path: Path, server: Server, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = {"/up/a.txt": TEXT + b" ", "/up/b.json": JSON + b" "}
    assert run(tmp_path, server, task) == 1
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert "not the file" in capsys.readouterr().err


def test_broken_connection_leaves_nothing(tmp_path: Path, server: Server) -> None:
    server.files["/up/a.txt"], server.promised = TEXT[:10], len(TEXT) - 10
    assert run(tmp_path, server, "e2e") == 1
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_continues_after_failure(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing upstream is named; what came before it stays and is not asked for."""
    del server.files["/up/b.json"]
    prepare_data.ORIGINALS["e2e"] += prepare_data.ORIGINALS["dart"]
    assert run(tmp_path, server, "e2e") == 1
    reason, _, files = capsys.readouterr().err.partition("Put these files")
    assert "Not Found" in reason and "b.json" in files and "a.txt" not in files
    server.files["/up/b.json"] = JSON
    assert run(tmp_path, server, "e2e") == 0
    assert server.asked.count("/up/a.txt") == 1


def test_other_file_in_the_way_is_kept(tmp_path: Path, server: Server) -> None:
    target = tmp_path / "e2e/a.txt"
    target.parent.mkdir()
    target.write_text("mine")
    with pytest.raises(UserError, match="move it away"):
        run(tmp_path, server, "e2e")
    assert target.read_text() == "mine"


def test_folder_that_cannot_be_made(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert run(file, server, "e2e") == 1
    assert str(file / "e2e/a.txt") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=mrpc"], "GLUE"),
        (["mirror=ftp://somewhere"], "give a URL"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare_data.main(arguments)


def test_offline_says_what_to_put_where(tmp_path: Path) -> None:
    """Quickly, with exit code 1, and without a traceback or anything left behind."""
    data = tmp_path / "data"
    arguments = ["task=all", f"paths.data={data}", f"mirror={NOWHERE}"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for originals in prepare_data.ORIGINALS.values():
        for original in originals:
            assert str(data / original.path) in done.stderr
            assert f"https://raw.githubusercontent.com/{original.source}" in done.stderr
            assert original.fingerprint in done.stderr
    assert not data.exists()


def test_misspelled_option_and_help() -> None:
    command = [sys.executable, str(SCRIPT)]
    wrong = subprocess.run([*command, "tsk=e2e"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "did you mean task?" in wrong.stderr
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "task=all" in shown.stdout


def test_every_source_is_pinned() -> None:
    """A branch name would let the bytes change below us."""
    for originals in prepare_data.ORIGINALS.values():
        for original in originals:
            commit = original.source.split("/")[2]
            assert len(commit) == 40 and int(commit, 16)
            assert len(original.sha256) == 64 or min(map(len, original.blobs)) >= 10


def test_fingerprints_are_those_of_the_published_files(shared_data: Path) -> None:
    """The known sha256 values, computed here from copies with the original bytes."""
    checked = 0
    for originals in prepare_data.ORIGINALS.values():
        for original in originals:
            file = shared_data / original.path
            if original.sha256 and file.exists():
                assert original.matches(file), original.path
                checked += 1
    assert checked == 10
