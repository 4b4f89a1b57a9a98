"""What every task looks like once its files are read, and what all loaders share.

A loader turns files (or a hub dataset) into splits with fixed column names; nothing after it knows
where the data came from:

- classification: `text_a`, optionally `text_b`, and `label`, an int class id
- regression: the same with a float `label`
- generation, split `train`: `source` and `target`, one row per reference
- generation, other splits: `source` and `references` (list[str]), one row per distinct input, in
  the order of their first appearance
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from dylora.errors import UserError
from dylora.suite.config import Config, TaskConfig
from dylora.suite.hub import why_unreachable

Splits = dict[str, Dataset]  # "train", "validation", "test", or names such as "validation_matched"
Loader = Callable[[TaskConfig, Path], Splits]  # (task, data folder) -> splits


def own_rows(splits: Splits, task: TaskConfig) -> Splits:
    """The splits with the training rows that the task is made of: its first `train_rows`."""
    if task.train_rows is None:
        return splits
    rows = splits["train"]
    return splits | {"train": rows.select(range(min(task.train_rows, len(rows))))}


def hold_out(splits: Splits, task: TaskConfig) -> Splits:
    """The splits with the last `holdout` training rows in place of the split that is scored.

    Settings that are chosen on them have not seen the data that results are reported on. Raises
    UserError if nothing would be left to train on.
    """
    if task.holdout is None:
        return splits
    rows = splits["train"]
    left = len(rows) - task.holdout
    if left < 1:
        raise UserError(
            f"task.holdout={task.holdout}: the training data has {len(rows)} rows; hold out fewer"
        )
    held = {task.eval_splits[0]: rows.select(range(left, len(rows)))}
    return splits | {"train": rows.select(range(left))} | held


def limit_rows(splits: Splits, task: TaskConfig) -> Splits:
    """The splits cut to their first `max_train_rows` (train) or `max_eval_rows` (others) rows."""
    limited = {}
    for name, split in splits.items():
        limit = task.max_train_rows if name == "train" else task.max_eval_rows
        limited[name] = split if limit is None else split.select(range(min(limit, len(split))))
    return limited


def split_files(task: TaskConfig) -> dict[str, str]:
    """The splits to load and their file names: `task.files` without those set to null.

    Raises UserError when nothing is left or when a split that is to be scored is left out.
    """
    files = {split: file for split, file in task.files.items() if file is not None}
    if not files:
        raise UserError(f"task {task.name}: no files; name them, e.g. task.files.train=train.tsv")
    unread = [split for split in task.eval_splits if split not in files]
    if unread:
        rest = ",".join(split for split in task.eval_splits if split in files) or "SPLIT"
        raise UserError(
            f"task {task.name}: task.eval_splits names {', '.join(unread)}, for which task.files"
            f" has no file: set task.files.{unread[0]}=FILE or task.eval_splits=[{rest}]"
        )
    return files


def local_files(task: TaskConfig, folder: Path) -> dict[str, Path]:
    """The path of every split's file in `folder`.

    Raises UserError naming the first file that is missing and the option that renames it.
    """
    paths = {split: folder / file for split, file in split_files(task).items()}
    for split, path in paths.items():
        if not path.is_file():
            present = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
            without = "" if split == "train" else f", or leave it out: task.files.{split}=null"
            raise UserError(
                f"{path}: no such file; the folder has: {present}. Name the file of this split:"
                f" task.files.{split}=FILE{without}"
            )
    return paths


def why_no_data(config: Config) -> str | None:
    """Why the run's data cannot be had; None if it can, as that of toy tasks, which is made here.

    Files are not opened, only looked for.
    """
    task = config.task
    if task.toy:
        return None
    folder = Path(config.paths.data) / task.folder
    if folder.is_dir():
        lacking = [file for file in split_files(task).values() if not (folder / file).exists()]
        return f"{folder} lacks {', '.join(lacking)}" if lacking else None
    if task.hub is None:
        return f"there is no folder {folder}"
    reason = why_unreachable(task.hub, "dataset")
    return reason and f"there is no folder {folder}, and from the hub: {reason}"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, every line end turned into `\\n`.

    Raises UserError naming the line when the bytes are not UTF-8 text, and the file when it is
    blank or cannot be read.
    """
    text = "\n".join(line for _, line in read_lines(path))
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line of a UTF-8 file with its number, from 1; for files too large for `read_text`.

    A line ends where the hub's GLUE was split: at `\\n`, `\\r` or both, and at nothing else that
    str.splitlines would take for an end. Raises UserError naming a line that is not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise UserError(f"{path}, line {number}: a NUL character; is this a text file?")
                yield number, line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def parse_json(text: str, path: Path, line: int = 1) -> Any:
    """The value of a JSON text that begins on `line` of a file.

    Raises UserError naming the line of a mistake, and the file of what JSON allows but would be
    lost or cannot be kept: a name twice in one object, half a character, values nested too deep.
    """
    try:
        value = json.loads(text, object_pairs_hook=_named_once)
        if "\\ud" in text.lower():  # half a character can only be written as an escape
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        wrong = line + error.lineno - 1
        raise UserError(f"{path}, line {wrong}: not valid JSON: {error.msg}") from error
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):x}"
        raise UserError(f"{path}, from line {line}: {half} is half a character") from error
    except (RecursionError, ValueError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{path}, from line {line}: {reason.partition(';')[0]}") from error
    return value


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has {next(n for n in names if names.count(n) > 1)!r} twice")
    return named


def _not_utf8(path: Path) -> UserError:
    if path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return UserError(
            f"{path}, line 1: not UTF-8 but UTF-16; convert the file: iconv -f UTF-16 -t UTF-8"
        )
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    before = re.split("[\udc80-\udcff]", text, maxsplit=1)[0]  # bytes that could not be decoded
    return UserError(
        f"{path}, line {before.count(chr(10)) + 1}: not UTF-8 (byte"
        f" 0x{ord(text[len(before)]) - 0xDC00:02x}); convert the file, e.g."
        f" iconv -f LATIN1 -t UTF-8 {path.name}"
    )
