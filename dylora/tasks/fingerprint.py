"""What the rows of a task are, as a hash per split, so that a score is never shown for others."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dylora.errors import UserError
from dylora.files import write_text
from dylora.suite.config import PathsConfig, TaskConfig
from dylora.tasks import load

if TYPE_CHECKING:
    from dylora.tasks.base import Splits

Fingerprint = dict[str, dict[str, int | str]]  # split -> number of rows, hash


def fingerprint(splits: "Splits") -> Fingerprint:
    """Rows and a hash of their content, for each split."""
    found: Fingerprint = {}
    for name, rows in sorted(splits.items()):
        digest = hashlib.sha256()
        for column in sorted(rows.column_names):
            digest.update(json.dumps([column, rows[column][:]]).encode())
        found[name] = {"rows": len(rows), "sha256": digest.hexdigest()[:16]}
    return found


def local_fingerprint(task: TaskConfig, paths: PathsConfig) -> Fingerprint | None:
    """The fingerprint of a task's files; None if they are not on this machine.

    Files whose path, size and time of change are those of an earlier call are not read again.
    Raises UserError as `load` does.
    """
    kept = _kept(task, paths)
    if kept is None:
        return None
    try:
        return json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not known yet, or cut off
        found = fingerprint(load(task, paths))
    with suppress(OSError, UserError):  # it is only a cache
        write_text(kept, json.dumps(found))
    return found


def difference(before: Fingerprint, now: Fingerprint) -> str:
    """What has changed between two fingerprints of a task; empty if nothing has."""
    changes = []
    for split in sorted(before.keys() | now.keys()):
        then, here = before.get(split), now.get(split)
        if then is None or here is None:
            changes.append(f"{split} is {'new' if then is None else 'gone'}")
        elif then["rows"] != here["rows"]:
            changes.append(f"{split} had {then['rows']} rows, now {here['rows']}")
        elif then != here:
            changes.append(f"{split} has other content in its {here['rows']} rows")
    return ", ".join(changes)


def _kept(task: TaskConfig, paths: PathsConfig) -> Path | None:
    """Where the fingerprint of the files as they are now is kept, once it is known."""
    folder = Path(paths.data) / task.folder
    files = [folder / file for file in task.files.values() if file is not None]
    if task.toy or not files or not all(file.exists() for file in files):
        return None
    states = []
    for file in files:
        for part in sorted(file.rglob("*")) if file.is_dir() else [file]:
            state = part.stat()
            states.append((str(part.absolute()), state.st_size, state.st_mtime_ns))
    reading = {k: v for k, v in asdict(task).items() if k != "decode"}
    key = hashlib.sha256(json.dumps([reading, states]).encode()).hexdigest()[:24]
    return Path(paths.cache) / "fingerprints" / f"{key}.json"
