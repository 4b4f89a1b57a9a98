"""Run records: one folder per run, named by what matters of its configuration. No torch here.

results/records/<signature>/record.json          what was run, where, and what came out
results/records/<signature>/history.csv          loss and rank of the training steps
results/records/<signature>/epochs.csv           scores after each epoch
results/records/<signature>/outputs/*.txt        one prediction per line, per split and rank
results/records/<signature>/adapter.safetensors  the trained tensors (not in git)
results/records/<signature>/checkpoint/          only while the run is unfinished (not in git)
results/records/<signature>/.gitignore           of a trial: nothing of it is for git
"""

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dylora.errors import UserError
from dylora.files import write_text
from dylora.methods import METHODS
from dylora.suite.config import Config
from dylora.suite.record_schema import fault

ABSENT = "not computed: "  # what a record says in place of a metric's signature, with the reason
MEANING = 1  # of the options; raised, as is SCHEMA, when one comes to mean something else
WIDTH = 100  # of a line of record.json
# Options that say where and how to work, not what to compute.
NEUTRAL = (
    "paths",
    "tracker",
    "device",
    "threads",
    "force",
    "dry_run",
    "fail_fast",
    "layout",
    "train.eval_batch_size",
    "evaluate.truncations",
    "train.gradient_checkpointing",
    "train.checkpoint_seconds",
    "task.decode.token_budget",
)
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "dylora")

Record = dict[str, Any]


def signature(config: Config) -> str:
    """Name of the run: task, model, method, rank, seed, and a hash of all that differs from the
    schema's defaults, so that a new option does not orphan older records."""
    matters = {"schema": MEANING, **_differences(asdict(config), asdict(Config()), prefix="")}
    text = json.dumps(matters, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    method = config.method
    rank = f"-r{method.max_rank}" if METHODS[method.name].has_ranks else ""
    return f"{config.task.name}-{config.model.name}-{method.name}{rank}-s{config.seed}-{digest}"


def _differences(values: dict[str, Any], defaults: Any, prefix: str) -> dict[str, Any]:
    """Flat `a.b.c: value` of what differs from the defaults and is not neutral."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        if name in NEUTRAL:
            continue
        default = defaults.get(key) if isinstance(defaults, dict) else None
        if isinstance(value, dict):
            found |= _differences(value, default, name + ".")
        elif value != default:
            found[name] = value
    return found


def without_neutral(config: Config) -> Record:
    """The configuration as nested dictionaries, without what does not change a result."""
    kept = asdict(config)
    for name in NEUTRAL:
        *groups, key = name.split(".")
        place = kept
        for group in groups:
            place = place[group]
        del place[key]
    return kept


def run_folder(config: Config) -> Path:
    return Path(config.paths.results) / "records" / signature(config)


def is_trial(config: Config) -> bool:
    """Whether the run is on toy data or on some rows only: its folder is kept out of git."""
    task = config.task
    return task.toy or task.max_train_rows is not None or task.max_eval_rows is not None


def write_record(folder: Path, record: Record) -> Path:
    """Write `record.json` whole or not at all; returns its path.

    ValueError for a number that JSON does not have, such as NaN.
    """
    return write_text(folder / "record.json", _layout(record) + "\n")


def _layout(value: Any, depth: int = 0, label: str = "") -> str:
    """JSON in which whatever fits is on one line, behind its `label`."""
    line = label + json.dumps(value, allow_nan=False)
    if not isinstance(value, dict | list) or not value or (depth and depth + len(line) < WIDTH):
        return line
    if isinstance(value, dict):
        parts = [_layout(item, depth + 1, f"{json.dumps(key)}: ") for key, item in value.items()]
    else:
        parts = [_layout(item, depth + 1) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    space = "\n" + " " * depth
    return f"{label}{opening}{space} {f',{space} '.join(parts)}{space}{closing}"


def read_record(folder: Path) -> Record | None:
    """The record of a run folder, None if it has none.

    Raises UserError saying which field of the record is wrong and what to do.
    """
    path = folder / "record.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        json.dumps(record, ensure_ascii=False).encode()  # half a character could not be shown
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it to run again") from error
    problem = fault(record)
    if problem:
        raise UserError(f"{path}: {problem}")
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def provenance(project: Path) -> Record:
    """What a result came from: git commit and state, package versions, machine."""
    return {
        "git": _git(project),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _git(project: Path) -> Record | None:
    """Commit, and a hash of uncommitted changes (None when there are none); None outside git."""
    try:
        commit = _run_git(project, "rev-parse", "HEAD").strip()
        changes = _run_git(project, "diff", "HEAD", "--", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return None
    digest = hashlib.sha256(changes.encode()).hexdigest()[:10] if changes else None
    return {"commit": commit, "uncommitted_changes": digest}


def _run_git(project: Path, *arguments: str) -> str:
    command = ["git", "-C", str(project), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
