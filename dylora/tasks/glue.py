"""The GLUE tasks: the original TSV files in a local folder, else `nyu-mll/glue` on the hub.

Both give the same class ids: `task.labels` lists the names used in the files in the order of the
hub's ids. On the hub the label column is always `label`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from dylora.errors import UserError
from dylora.suite.config import Kind, TaskConfig
from dylora.suite.hub import offline, patience, why_unreachable
from dylora.tasks.base import Splits, local_files, split_files
from dylora.tasks.table import RawSplit, read_tsv, to_dataset, wanted_columns

HUB_LABEL = "label"


def load_glue(task: TaskConfig, data: Path) -> Splits:
    """Splits of a task in GLUE's format, columns as `dylora.tasks.base` defines them.

    Files are read from `data / task.folder` when that folder exists, otherwise `task.hub` is
    loaded. Raises UserError naming file and line for bad data, and when neither can be had.
    """
    folder = data / task.folder
    if folder.is_dir():
        paths = local_files(task, folder)
        return {split: to_dataset(task, read_tsv(task, path)) for split, path in paths.items()}
    return _load_hub(task, folder)


def _load_hub(task: TaskConfig, folder: Path) -> Splits:
    names = list(split_files(task))
    if task.hub is None:
        raise UserError(f"task {task.name}: {_how_to_provide(task, folder)}")
    reason = why_unreachable(task.hub, "dataset")
    try:
        with _offline() if reason else patience(f"dataset {task.hub}", _remedy(task)):
            loaded = datasets.load_dataset(task.hub, task.hub_config, split=names)
    except (OSError, ValueError, HfHubHTTPError, DatasetsError) as error:
        # OSError covers a lost connection and a full disk, ValueError a wrong split or config.
        what = f"could not be loaded ({reason or error})"
        raise UserError(
            f"task {task.name}: the hub's dataset {task.hub!r} {what}, and"
            f" {_how_to_provide(task, folder)}"
        ) from error
    return {name: _from_hub(task, name, rows) for name, rows in zip(names, loaded, strict=True)}


def _how_to_provide(task: TaskConfig, folder: Path) -> str:
    return (
        f"there is no folder {folder.absolute()}. {_remedy(task)}. `dylora run` without arguments"
        " (the toy task) needs neither data nor network."
    )


def _remedy(task: TaskConfig) -> str:
    files = ", ".join(split_files(task).values())
    return f"Put {files} into FOLDER/{task.folder} and set paths.data=FOLDER"


@contextmanager
def _offline() -> Iterator[None]:
    """Lets load_dataset use only its cache, as HF_HUB_OFFLINE=1 does at start-up."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        with offline():
            yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _from_hub(task: TaskConfig, split: str, rows: datasets.Dataset) -> datasets.Dataset:
    source = f"{task.hub}/{task.hub_config}, split {split}"
    named = replace(task, text=task.hub_text or task.text, label=task.label and HUB_LABEL)
    missing = [name for name in wanted_columns(named) if name not in rows.column_names]
    if missing:
        raise UserError(
            f"{source}: no column {missing[0]!r}; there are: {', '.join(rows.column_names)}."
            " Name the text columns with task.hub_text=[...]"
        )
    columns = {name: rows[name][:] for name in wanted_columns(named)}
    if task.kind == Kind.classification and named.label:
        columns[HUB_LABEL] = [_label_name(task, number) for number in columns[HUB_LABEL]]
        _check_order(task, source, rows.features[HUB_LABEL])
    return to_dataset(named, RawSplit(source, columns, range(1, len(rows) + 1), "row"))


def _label_name(task: TaskConfig, number: int) -> str:
    """The name of a class id; an id without a name (-1: no label) stays a number."""
    return task.labels[number] if 0 <= number < len(task.labels) else str(number)


def _check_order(task: TaskConfig, source: str, feature: object) -> None:
    """The hub's own class names, where they are the same words as ours, must be in our order."""
    names = getattr(feature, "names", task.labels)
    if sorted(names) == sorted(task.labels) and names != task.labels:
        raise UserError(f"{source}: set task.labels=[{','.join(names)}], the order of its ids")
