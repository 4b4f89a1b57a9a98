"""How a run went, as two tables beside its record. No torch here.

history.csv   a row per training step: loss, rank, learning rate
epochs.csv    a row per epoch, rank and metric: the scores on the validation data
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

from dylora.errors import UserError
from dylora.files import write_text

STEPS, EPOCHS = "history.csv", "epochs.csv"


class Step(NamedTuple):
    """One optimizer step; long runs keep every k-th."""

    step: int  # from 0
    loss: float  # mean over the step's batch
    rank: float  # the mean if each example has its own; 0 for a method without ranks
    lr: float


class EpochScore(NamedTuple):
    """One score after an epoch; what belongs to the epoch is the same in all its rows."""

    epoch: int  # from 1
    step: int  # optimizer steps until then
    rank: int  # 0 for a method without ranks
    metric: str
    value: float | None  # None: not a number
    selected: float | None  # what decides which epoch is best
    train_seconds: float | None  # None: interrupted before it was known
    evaluate_seconds: float | None


Row = TypeVar("Row", Step, EpochScore)


def write_history(
    folder: Path, steps: Iterable[dict[str, Any]], epochs: Iterable[dict[str, Any]]
) -> None:
    """Write both tables from the lists that the training loop keeps."""
    _write(folder / STEPS, Step, (Step(**point) for point in steps))
    _write(folder / EPOCHS, EpochScore, (row for epoch in epochs for row in _rows(epoch)))


def read_steps(folder: Path) -> list[Step]:
    """The steps of a run folder, none if they are not there; UserError if they cannot be read."""
    return _read(folder / STEPS, Step)


def read_epochs(folder: Path) -> list[EpochScore]:
    """The scores after each epoch in the same way."""
    return _read(folder / EPOCHS, EpochScore)


def finite(value: float | None) -> float | None:
    """None for what is not a number, which neither JSON nor a table of numbers has."""
    return value if value is not None and math.isfinite(value) else None


def _rows(epoch: dict[str, Any]) -> Iterator[EpochScore]:
    seconds = (epoch.get("train_seconds"), epoch.get("evaluate_seconds"))
    for rank, scores in epoch["scores"].items():
        for metric, value in scores.items():
            known = (int(rank), metric, finite(value), finite(epoch["selected"]))
            yield EpochScore(epoch["epoch"], epoch["step"], *known, *seconds)


def _write(path: Path, kind: type[Row], rows: Iterable[Row]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows(rows)  # None is an empty cell
    write_text(path, text.getvalue())


def _read(path: Path, kind: type[Row]) -> list[Row]:
    parsers = [_PARSERS[hint] for hint in get_type_hints(kind).values()]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        if tuple(header) != kind._fields:
            raise ValueError(f"its columns are not {','.join(kind._fields)}")
        return [
            kind._make(parse(cell) for parse, cell in zip(parsers, line, strict=True))
            for line in lines
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); run again with force=true") from error


def _optional(cell: str) -> float | None:
    return float(cell) if cell else None


_PARSERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    str: str,
    float | None: _optional,
}
