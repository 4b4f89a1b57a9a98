"""Labeled text in a table file: CSV, TSV, JSON or JSON Lines, described by the task's YAML alone.

Texts are kept exactly as they stand in the file, spaces included; an empty text is allowed. A label
is never guessed: it must be one of `task.labels`.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from dylora.errors import UserError
from dylora.suite.config import Kind, TaskConfig
from dylora.tasks.base import Splits, local_files, parse_json, read_lines, read_text

LARGEST_SCORE = 1e18  # a regression squares it, in float32
LONGEST_CELL = 2**31 - 1  # characters; csv's own limit of 131,072 refuses long documents


@dataclass
class RawSplit:
    """The wanted columns of one split, and where each row stands in its file."""

    source: str  # file or hub dataset, for error messages
    columns: dict[str, list[Any]]
    places: Sequence[int]  # 1-based, one per row
    unit: str = "line"  # what `places` counts

    def where(self, row: int) -> str:
        """File and line of a row, counted from 0, as they stand in front of an error message."""
        return f"{self.source}, {self.unit} {self.places[row]}"


def load_table(task: TaskConfig, data: Path) -> Splits:
    """Splits of a user's own classification or regression task, read from `data / task.folder`.

    The ending of the file decides how it is read: `.csv` (quoted as usual), `.tsv` (split at tabs,
    quotes are plain characters), `.json` (a list of objects), `.jsonl` (one object per line).
    Raises UserError naming file and row for whatever is wrong with them.
    """
    folder = data / task.folder
    if not folder.is_dir():
        raise UserError(
            f"task {task.name}: no folder {folder.absolute()}; set task.folder=FOLDER"
            " (relative to paths.data, or absolute)"
        )
    paths = local_files(task, folder)
    return {split: to_dataset(task, _read(task, path)) for split, path in paths.items()}


def _read(task: TaskConfig, path: Path) -> RawSplit:
    readers: dict[str, Callable[[TaskConfig, Path], RawSplit]] = {
        ".csv": read_csv,
        ".tsv": read_tsv,
        ".json": read_json,
        ".jsonl": read_jsonl,
    }
    if path.suffix not in readers:
        raise UserError(f"{path}: unknown ending; task.files takes {', '.join(readers)}")
    return readers[path.suffix](task, path)


def read_tsv(task: TaskConfig, path: Path) -> RawSplit:
    """Columns of a tab-separated file without quoting, which is the format of GLUE's files.

    Split by hand: csv and pandas quote by default, which silently joins thousands of GLUE's rows,
    and neither says on which line a row with a missing column stands.
    """
    rows = ((line, text.split("\t")) for line, text in read_lines(path) if text)
    return _from_rows(task, path, rows)


def wanted_columns(task: TaskConfig) -> list[str]:
    """The texts, and the label if the rows have one."""
    return [*task.text, task.label] if task.label else task.text


def read_csv(task: TaskConfig, path: Path) -> RawSplit:
    """Columns of a comma-separated file; a quoted cell may hold commas, quotes and line ends."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader((text + "\n" for _, text in read_lines(path)), strict=True)

    def rows() -> Iterable[tuple[int, list[str]]]:
        line = 1
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1  # where the next row starts
        except csv.Error as error:
            raise UserError(f"{path}, line {line}: not valid CSV: {error}") from error

    return _from_rows(task, path, rows())


def _from_rows(task: TaskConfig, path: Path, rows: Iterable[tuple[int, list[str]]]) -> RawSplit:
    """Picks the task's columns from (line, cells); the first row is the header if none is given."""
    rows = iter(rows)
    header = task.columns or next(rows, (0, None))[1]
    if header is None:
        raise UserError(f"{path}: the file is empty")
    names = wanted_columns(task)
    for name, option in zip(names, ["text"] * len(task.text) + ["label"], strict=False):
        if name not in header:
            raise UserError(
                f"{path}: no column {name!r}; there are: {', '.join(header)}. Name it with"
                f" task.{option}=, or set task.columns=[...] if the file has no header"
            )
        if header.count(name) > 1:
            raise UserError(f"{path}: two columns are named {name!r}; rename one of them")
    wanted = [header.index(name) for name in names]
    places: list[int] = []
    picked: list[list[str]] = []
    for line, cells in rows:
        if len(cells) == len(header):
            places.append(line)
            picked.append([cells[column] for column in wanted])
        elif len(cells) > len(header) or not task.drop_short_rows:
            raise UserError(
                f"{path}, line {line}: {len(cells)} columns instead of {len(header)}"
                f" ({', '.join(header)})"
            )
    columns = {name: [row[column] for row in picked] for column, name in enumerate(names)}
    return RawSplit(str(path), columns, places)


def read_json(task: TaskConfig, path: Path) -> RawSplit:
    """Columns of a JSON list of objects."""
    objects = parse_json(read_text(path), path)
    if not isinstance(objects, list):
        raise UserError(f"{path}: not a list of objects; name it .jsonl if it has one per line")
    return _from_objects(
        task, RawSplit(str(path), {}, range(1, len(objects) + 1), "object"), objects
    )


def read_jsonl(task: TaskConfig, path: Path) -> RawSplit:
    """Columns of a file with one JSON object per line."""
    places: list[int] = []
    objects = []
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            objects.append(parse_json(text, path, line))
            places.append(line)
    return _from_objects(task, RawSplit(str(path), {}, places), objects)


def _from_objects(task: TaskConfig, split: RawSplit, objects: list[Any]) -> RawSplit:
    """Fills the split with the task's columns from JSON objects."""
    for row, item in enumerate(objects):
        if not isinstance(item, Mapping):
            raise UserError(f"{split.where(row)}: not an object with named values")
        for name in wanted_columns(task):
            if item.get(name) is None:
                raise UserError(f"{split.where(row)}: no {name!r}; there are: {', '.join(item)}")
    split.columns = {name: [o[name] for o in objects] for name in wanted_columns(task)}
    return split


def to_dataset(task: TaskConfig, split: RawSplit) -> Dataset:
    """`text_a`, optionally `text_b`, and `label` from the split's text and label columns.

    Labels become the index of their name in `task.labels`, for regression a float32; 0 where there
    are none. Raises
    UserError naming file and row for a text that is no text, an unknown label or a score that is
    not a finite number.
    """
    if not split.places:
        raise UserError(f"{split.source}: no rows")
    columns: dict[str, list[Any]] = {}
    for name, column in zip(("text_a", "text_b"), task.text, strict=False):
        columns[name] = split.columns[column]
        for row, text in enumerate(columns[name]):
            if not isinstance(text, str):
                raise UserError(f"{split.where(row)}: {column!r} is no text: {text!r}")
    if not any(text.strip() for texts in columns.values() for text in texts):
        raise UserError(f"{split.source}: no row has a text in {' or '.join(task.text)}")
    convert = _scores if task.kind == Kind.regression else _class_ids
    columns["label"] = convert(task, split) if task.label else [0] * len(split.places)
    label_type = "float32" if task.kind == Kind.regression else "int64"
    features = {name: Value("string") for name in columns} | {"label": Value(label_type)}
    return Dataset.from_dict(columns, features=Features(features))


def _class_ids(task: TaskConfig, split: RawSplit) -> list[int]:
    ids = {name: number for number, name in enumerate(task.labels)}
    found = [str(label) for label in split.columns[task.label]]
    try:
        return [ids[label] for label in found]
    except KeyError:
        row = next(row for row, label in enumerate(found) if label not in ids)
        raise UserError(
            f"{split.where(row)}: unknown label {found[row]!r} in column {task.label!r};"
            f" task.labels has: {', '.join(ids)}"
        ) from None


def _scores(task: TaskConfig, split: RawSplit) -> list[float]:
    scores = []
    for row, value in enumerate(split.columns[task.label]):
        try:
            score = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError, OverflowError):
            score = math.nan
        if not math.isfinite(score):
            raise UserError(f"{split.where(row)}: column {task.label!r} is not a number: {value!r}")
        if abs(score) > LARGEST_SCORE:
            raise UserError(f"{split.where(row)}: the score {value!r} is too large to learn")
        scores.append(score)
    return scores
