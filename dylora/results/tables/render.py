"""Tables as Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dylora.results.tables.cells import DASH, Cell, Row, Table
from dylora.results.tables.paired import PairedTest

PUBLISHED = "published"


def markdown(name: str, tables: Sequence[Table]) -> str:
    """A document with all tables of an experiment."""
    return "\n\n".join([f"# {name}", *map(markdown_table, tables)]) + "\n"


def markdown_table(table: Table, level: int = 2) -> str:
    """One table under a heading of this level, with its notes."""
    lines = [_markdown_line(map(_markdown_escape, table.header))]
    lines.append("|---|---|" + "---:|" * (len(table.header) - 2))
    lines += [_markdown_line(_cells(table, row, _MARKDOWN)) for row in table.rows]
    notes = "\n".join(f"- {_markdown_escape(note)}" for note in table.all_notes)
    blocks = [f"{'#' * level} {_markdown_escape(table.title)}", "\n".join(lines), notes]
    return "\n\n".join(block for block in blocks if block)


def _label(table: Table, row: Row) -> str:
    """The name of a row; that of a published one says so, with the number of its source."""
    name = table.name(row)
    return f"{PUBLISHED}: {name} {table.tag(row)}" if row.published else name


@dataclass(frozen=True)
class _Markup:
    """How a format writes text; `italic` and the like have one %s."""

    escape: Callable[[str], str]
    italic: str
    bold: str
    marks: str


def _cells(table: Table, row: Row, markup: _Markup) -> list[str]:
    """A row in a format: published values in italics, the best of a column in bold."""
    label = markup.escape(_label(table, row))
    texts = [label if row.published is None else markup.italic % label, markup.escape(row.detail)]
    for cell in row.cells:
        text = markup.escape(cell.text)
        if row.published is not None and cell.text != DASH:
            text = markup.italic % text
        elif cell.best:
            text = markup.bold % text
        marks = markup.escape(table.marks(cell))
        texts.append(text + (markup.marks % marks if marks else ""))
    return texts


def _markdown_line(cells: Sequence[str] | map) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_escape(text: str) -> str:
    return re.sub(r"([\\|*<>`\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


_MARKDOWN = _Markup(_markdown_escape, "*%s*", "**%s**", "%s")


def latex(name: str, tables: Sequence[Table]) -> str:
    """Floats to \\input into a document that loads booktabs and graphicx."""
    head = [f"% {name}. Needs \\usepackage{{booktabs}} and \\usepackage{{graphicx}}."]
    return "\n\n".join(head + [_latex_table(table) for table in tables]) + "\n"


def _latex_table(table: Table) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_escape(table.title)}.}}",
        # Wide tables shrink to the width of the text.
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{ll{'r' * (len(table.header) - 2)}}}",
        r"\toprule",
        " & ".join(map(_latex_escape, table.header)) + r" \\",
    ]
    before: str | None = None
    for row in table.rows:
        lines += [r"\midrule"] * (row.block != before)
        lines.append(" & ".join(_cells(table, row, _LATEX)) + r" \\")
        before = row.block
    lines += [r"\bottomrule", r"\end{tabular}}"]
    notes = " ".join(map(_latex_escape, table.all_notes))
    if notes:
        lines += [rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"])


LATEX_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "×": r"$\times$",
    DASH: "--",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "¶": r"\P{}",
}


def _latex_escape(text: str) -> str:
    """Text for any LaTeX engine; letters that not every font has are given by their number."""
    plain = (LATEX_SIGNS.get(sign, sign) for sign in " ".join(text.split()))
    return "".join(t if ord(t[0]) < 256 else f"[U+{ord(t):04X}]" for t in plain)


_LATEX = _Markup(_latex_escape, r"\textit{%s}", r"\textbf{%s}", r"\textsuperscript{%s}")

CSV_HEADER = (
    *("experiment", "table", "model", "origin", "row", "detail", "column", "text", "value"),
    *("seeds", "mean", "std", "median", "best", "marks", "note", "source", "confidence", "runs"),
)


def csv_table(name: str, tables: Sequence[Table]) -> str:
    """One line for each cell, with all that is known of it; `origin` is measured or published."""
    lines: list[Sequence[object]] = [CSV_HEADER]
    for table in tables:
        for row in table.rows:
            for heading, cell in zip(table.header[2:], row.cells, strict=True):
                lines.append(_csv_line(name, table, row, heading, cell))
    return _csv(lines)


def _csv_line(name: str, table: Table, row: Row, heading: str, cell: Cell) -> Sequence[object]:
    p, s = row.published, cell.summary
    return [
        *(name, table.title, table.model, PUBLISHED if p else "measured"),
        *(row.name, row.detail, heading, cell.text, cell.value),
        *((s.n, s.mean, s.std, s.median) if s else (None,) * 4),
        *("yes" if cell.best else "", cell.marks, cell.note),
        *((p.source, p.confidence) if p else (None, None)),
        " ".join(run.signature for run in cell.runs),
    ]


TEST_HEADER = (
    *("experiment", "model", "task", "metric", "rank", "method", "against", "seeds", "examples"),
    *("difference", "low", "high", "bootstrap_p", "randomization_p", "mcnemar_p"),
)


def csv_tests(name: str, tests: Sequence[PairedTest]) -> str:
    """The paired tests; differences in points, with the 95% interval of the bootstrap."""
    lines: list[Sequence[object]] = [TEST_HEADER]
    for test in tests:
        place = (name, test.model, test.column.task, test.column.metric, test.rank)
        c = test.comparison
        values: Sequence[object] = ("",) * 8
        if c is not None:
            printed = test.column.about.printed
            points = [f"{printed(value):.4g}" for value in (c.difference, c.low, c.high)]
            p_values = [
                "" if p is None else f"{p:.4g}"
                for p in (c.bootstrap_p, c.randomization_p, c.mcnemar_p)
            ]
            values = (c.seeds, c.examples, *points, *p_values)
        lines.append((*place, test.arm, test.against, *values))
    return _csv(lines)


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
