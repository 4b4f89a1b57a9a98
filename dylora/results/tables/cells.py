"""What a table is made of: cells, rows, and numbers as text. No file format is known here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

from dylora.results.names import model_name
from dylora.results.published import Published
from dylora.results.runs import Run
from dylora.results.stats import Center, Summary

DASH = "–"  # for what is missing; never a guess
DIGITS = 2  # of a mean over seeds, as the paper prints all of them
LETTERS = ascii_lowercase  # of the notes on single cells


@dataclass(frozen=True)
class Cell:
    """One value with what it came from; `text` is what is printed."""

    text: str = DASH
    value: float | None = None  # what the text shows, unrounded
    summary: Summary | None = None  # over seeds
    runs: tuple[Run, ...] = ()
    best: bool = False  # of its column
    marks: str = ""  # of paired tests
    note: str = ""  # what is odd about the value, under the table


@dataclass(frozen=True)
class Row:
    """A line of a table; `published` if its numbers are from the literature, not measured here."""

    name: str
    detail: str  # the second heading: a rank, a task, a source
    cells: Sequence[Cell]
    published: Published | None = None
    block: str = ""  # rows of one block stand together, with a line above

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
    of_runs: bool = True  # else its rows are settings
    brief: bool = False  # says what matters of an experiment, for results/REPORT.md

    @property
    def measured(self) -> bool:
        return any(cell.runs for row in self.rows for cell in row.cells)

    @property
    def sources(self) -> list[str]:
        """Where the published values are from, each once."""
        return list(dict.fromkeys(row.source for row in self.rows if row.published is not None))

    def name(self, row: Row) -> str:
        """Of a row: beside published ones a measured one says whose it is."""
        ours = self.of_runs and row.published is None and self.sources
        return f"{row.name}, ours ({model_name(self.model)})" if ours else row.name

    def tag(self, row: Row) -> str:
        """The number of a published row's source, as in [1]; empty if measured here."""
        return f"[{1 + self.sources.index(row.source)}]" if row.published else ""

    def marks(self, cell: Cell) -> str:
        """What stands behind a cell: the marks of tests, the letter of its note."""
        return cell.marks + (f"({LETTERS[self._footnotes.index(cell.note)]})" if cell.note else "")

    @property
    def all_notes(self) -> list[str]:
        """The notes, those of single cells by letter, and the sources by number."""
        rows = [row.published for row in self.rows if row.published is not None]
        remarks = list(dict.fromkeys(remark for row in rows for remark in row.remarks))
        lettered = [f"({LETTERS[i]}) {note}." for i, note in enumerate(self._footnotes)]
        head = ["Rows marked published are numbers of others, not measured here."] * bool(rows)
        sources = [f"[{n}] {source}." for n, source in enumerate(self.sources, start=1)]
        return [*self.notes, *remarks, *lettered, *head, *sources]

    @property
    def _footnotes(self) -> list[str]:
        notes = (cell.note for row in self.rows for cell in row.cells if cell.note)
        return list(dict.fromkeys(notes))


def number(value: float, digits: int) -> str:
    """Fixed digits, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float) -> str:
    """A difference as it is printed: with a plus, too, and zero without a sign."""
    text = number(value, DIGITS)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def score_cell(summary: Summary, center: Center, digits: int, runs: tuple[Run, ...]) -> Cell:
    """Center ± standard deviation over seeds; the center alone for one seed."""
    value = summary.center(center)
    spread = "" if summary.std is None else f" ± {number(summary.std, digits)}"
    return Cell(number(value, digits) + spread, value, summary, runs)


def plain_cell(value: float | None, digits: int, runs: tuple[Run, ...] = ()) -> Cell:
    return Cell() if value is None else Cell(number(value, digits), value, runs=runs)


def published_row(row: Published, keys: Sequence[str], model: str, block: str = "") -> Row:
    """The values of `keys` as printed by the source; never bold, never with runs.

    `model` is the table's; a row of another model names that.
    """
    texts = [row.values.get(key, DASH).replace("±", " ± ").replace("(", " (") for key in keys]
    notes = [row.notes.get(key, "") for key in keys]
    cells = [Cell(text, note=note) for text, note in zip(texts, notes, strict=True)]
    other = "" if model in row.models else f", {' and '.join(map(model_name, row.models))}"
    return Row(row.name + other, row.rank, cells, row, block)


def seeds_cell(cells: Sequence[Cell]) -> Cell:
    """How many seeds are behind each value of a row: `5`, or `3-5` where that differs."""
    counts = [cell.summary.n for cell in cells if cell.summary is not None]
    if not counts:
        return Cell()
    low, high = min(counts), max(counts)
    return Cell(str(low) if low == high else f"{low}-{high}")


def mark_best(rows: Sequence[Row], skip: int, lower_is_better: Sequence[bool]) -> list[Row]:
    """The rows with the best of each column marked, from the column `skip` on.

    Equal as printed is equally good; a column whose values are all the same has no best.
    """
    best: list[float | None] = []
    for column, lower in enumerate(lower_is_better, skip):
        values = [row.cells[column].value for row in rows]
        known = [round(value, DIGITS) for value in values if value is not None]
        best.append((min if lower else max)(known) if len(set(known)) > 1 else None)

    def marked(cell: Cell, column: int) -> Cell:
        if not skip <= column < skip + len(best) or cell.value is None:
            return cell
        return replace(cell, best=round(cell.value, DIGITS) == best[column - skip])

    return [replace(row, cells=[marked(c, i) for i, c in enumerate(row.cells)]) for row in rows]
