"""What a table is made of: cells, rows, and numbers as text. No file format is known here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dylora.results.layout import Published
from dylora.results.runs import Run
from dylora.results.stats import Summary

DASH = "–"  # for what is missing; never a guess


@dataclass(frozen=True)
class Cell:
    """One value with what it came from; `text` is what is printed."""

    text: str = DASH
    value: float | None = None  # what the text shows, unrounded
    summary: Summary | None = None  # over seeds
    runs: tuple[Run, ...] = ()
    best: bool = False  # of its column
    marks: str = ""  # of paired tests


@dataclass(frozen=True)
class Row:
    """A line of a table; `published` if its numbers are from the literature, not measured here."""

    name: str
    detail: str  # the second heading: a rank, a task, a source
    cells: Sequence[Cell]
    published: Published | None = None

    @property
    def source(self) -> str:
        """Where a published row is from and how sure that is; empty if measured here."""
        p = self.published
        return "" if p is None else f"{p.source} (confidence: {p.confidence})"


@dataclass(frozen=True)
class Table:
    """A table of one model; `header` begins with the headings of a row's name and detail."""

    title: str
    model: str
    header: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    @property
    def measured(self) -> bool:
        return any(cell.runs for row in self.rows for cell in row.cells)


def number(value: float, digits: int) -> str:
    """Fixed digits, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def score_cell(summary: Summary, center: str, digits: int, runs: tuple[Run, ...]) -> Cell:
    """Center ± standard deviation over seeds; the center alone for one seed."""
    value = summary.center(center)
    spread = "" if summary.std is None else f" ± {number(summary.std, digits)}"
    return Cell(number(value, digits) + spread, value, summary, runs)


def plain_cell(value: float | None, digits: int, runs: tuple[Run, ...] = ()) -> Cell:
    return Cell() if value is None else Cell(number(value, digits), value, runs=runs)


def published_row(row: Published, keys: Sequence[str]) -> Row:
    """The values of `keys` as printed by the source; never bold, never with runs."""
    texts = [row.values.get(key, DASH).replace("±", " ± ") for key in keys]
    return Row(row.name, row.rank, [Cell(text) for text in texts], row)


def seeds_cell(cells: Sequence[Cell]) -> Cell:
    """How many seeds are behind each value of a row: `5`, or `3-5` where that differs."""
    counts = [cell.summary.n for cell in cells if cell.summary is not None]
    if not counts:
        return Cell()
    low, high = min(counts), max(counts)
    return Cell(str(low) if low == high else f"{low}-{high}")


def mark_best(
    rows: Sequence[Row], lower_is_better: Sequence[bool], digits: Sequence[int]
) -> list[Row]:
    """The rows with the best of each column marked; equal as printed is equally good.

    A column whose values are all the same has no best.
    """
    best: list[float | None] = []
    for column, (lower, places) in enumerate(zip(lower_is_better, digits, strict=True)):
        values = [row.cells[column].value for row in rows]
        known = [round(value, places) for value in values if value is not None]
        best.append((min if lower else max)(known) if len(set(known)) > 1 else None)

    def marked(cell: Cell, column: int) -> Cell:
        if cell.value is None or best[column] is None:
            return cell
        return replace(cell, best=round(cell.value, digits[column]) == best[column])

    columns = range(len(best))
    return [
        replace(row, cells=[*(marked(row.cells[c], c) for c in columns), *row.cells[len(best) :]])
        for row in rows
    ]
