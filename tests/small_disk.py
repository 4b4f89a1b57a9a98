"""An experiment on a disk that is full at first and then grows page by page, until it is done.

`inside` runs this file as a program which may mount a disk. It prints a line of JSON: what the run
said each time, what it left behind, and how it ended.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGES_MORE = 3  # of 4 KiB; each time the run fails a few files later
PAGES_ENOUGH = 200
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def inside(home: Path, disk: Path) -> dict[str, Any]:
    """What this script prints, from a process that has mounts of its own; skips if none can."""
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this machine lets nobody mount a disk of a few pages: {tried.stderr}")
    command = [*NAMESPACE, sys.executable, __file__, str(home), str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def mount(disk: str, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)


def left_behind(disk: Path) -> dict[str, Any]:
    records = [json.loads(path.read_text()) for path in disk.glob("records/*/record.json")]
    return {
        "checkpoints": [path.name for path in disk.rglob("*.pt")],
        "unfinished": [path.name for path in disk.rglob("*.tmp")],
        "statuses": [record["status"] for record in records],
        "reasons": [record.get("error") for record in records],
    }


def main() -> None:
    from small_run import config

    from dylora.errors import UserError
    from dylora.training import experiment

    home, disk = Path(sys.argv[1]), Path(sys.argv[2])
    mount(str(disk), "size=4k")
    made = config(home, disk, "train.checkpoint_seconds=0")
    tries = []
    for pages in range(1, PAGES_ENOUGH, PAGES_MORE):
        mount(str(disk), f"remount,size={4 * pages}k")
        try:
            record = experiment.run(made)
            break
        except UserError as error:
            tries.append({"said": str(error), **left_behind(disk)})
    mount(str(disk), "remount,ro")
    made.seed = 2
    try:
        experiment.run(made)
    except UserError as error:
        readonly = str(error)
    (adapter,) = disk.glob("records/*/adapter.safetensors")
    seen = {"tries": tries, "readonly": readonly, "scores": record["scores"]}
    print(json.dumps({**seen, "adapter": adapter.read_bytes().hex()}))


if __name__ == "__main__":
    main()
