"""Tables as Markdown, LaTeX (booktabs) and CSV."""

import csv
import io
import re
from collections.abc import Sequence

from dylora.results.tables.cells import DASH, Cell, Row, Table
from dylora.results.tables.paired import PairedTest

PUBLISHED = "published"


def markdown(name: str, tables: Sequence[Table]) -> str:
    """A document with all tables of an experiment."""
    blocks = [f"# {name}"]
    for table in tables:
        lines = [_markdown_line(map(_markdown_escape, table.header))]
        lines.append("|---|---|" + "---:|" * (len(table.header) - 2))
        lines += [_markdown_line(_markdown_cells(table, row)) for row in table.rows]
        blocks.append(f"## {_markdown_escape(table.title)}")
        blocks.append("\n".join(lines))
        blocks.append("\n".join(f"- {_markdown_escape(note)}" for note in table.all_notes))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _label(table: Table, row: Row) -> str:
    """The name of a row; that of a published one says so, with the number of its source."""
    name = table.name(row)
    return f"{PUBLISHED}: {name} {table.tag(row)}" if row.published else name


def _markdown_cells(table: Table, row: Row) -> list[str]:
    label = _markdown_escape(_label(table, row))
    if row.published is not None:
        label = f"*{label}*"
    texts = []
    for cell in row.cells:
        text = _markdown_escape(cell.text)
        if row.published is not None and cell.text != DASH:
            text = f"*{text}*"
        elif cell.best:
            text = f"**{text}**"
        texts.append(text + table.marks(cell))
    return [label, _markdown_escape(row.detail), *texts]


def _markdown_line(cells: Sequence[str] | map) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_escape(text: str) -> str:
    return re.sub(r"([\\|*<>`\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


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
        lines.append(" & ".join(_latex_cells(table, row)) + r" \\")
        before = row.block
    lines += [r"\bottomrule", r"\end{tabular}}"]
    notes = " ".join(map(_latex_escape, table.all_notes))
    if notes:
        lines += [rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"])


def _latex_cells(table: Table, row: Row) -> list[str]:
    label = _latex_escape(_label(table, row))
    if row.published is not None:
        label = rf"\textit{{{label}}}"
    texts = []
    for cell in row.cells:
        text = _latex_escape(cell.text)
        if row.published is not None and cell.text != DASH:
            text = rf"\textit{{{text}}}"
        elif cell.best:
            text = rf"\textbf{{{text}}}"
        marks = _latex_escape(table.marks(cell))
        texts.append(text + (rf"\textsuperscript{{{marks}}}" if marks else ""))
    return [label, _latex_escape(row.detail), *texts]


LATEX = {
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
    plain = (LATEX.get(sign, sign) for sign in " ".join(text.split()))
    return "".join(t if ord(t[0]) < 256 else f"[U+{ord(t):04X}]" for t in plain)


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
    *("difference", "low", "high", "bootstrap_p", "randomisation_p", "mcnemar_p"),
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
                for p in (c.bootstrap_p, c.randomisation_p, c.mcnemar_p)
            ]
            values = (c.seeds, c.examples, *points, *p_values)
        lines.append((*place, test.arm, test.against, *values))
    return _csv(lines)


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
