"""The tables of every experiment, made from records alone: no torch, no network, no training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dylora.errors import UserError
from dylora.files import write_text
from dylora.results.layout import (
    ClaimsLayout,
    Experiment,
    ScoreLayout,
    SearchLayout,
    TimeLayout,
    published_files,
)
from dylora.results.published import Published
from dylora.results.runs import Problem, Run
from dylora.results.tables.cells import Cell, Row, Table
from dylora.results.tables.claims import claim_tables
from dylora.results.tables.costs import time_tables
from dylora.results.tables.paired import PairedTest
from dylora.results.tables.render import csv_table, csv_tests, latex, markdown
from dylora.results.tables.scores import score_tables
from dylora.results.tables.search import search_tables
from dylora.results.tables.settings import settings_tables

__all__ = ["Cell", "ExperimentTables", "PairedTest", "Row", "Table", "build_tables", "write_tables"]


@dataclass(frozen=True)
class ExperimentTables:
    """All tables of an experiment, and the paired tests behind their marks."""

    experiment: Experiment
    tables: list[Table]
    tests: list[PairedTest]


def build_tables(
    experiment: Experiment, runs: Sequence[Run], published: Mapping[str, Sequence[Published]]
) -> tuple[ExperimentTables, list[Problem]]:
    """Lay out the runs as the experiment says, and tell what of the experiment cannot be used."""
    layout = experiment.layout
    problems = [
        Problem(
            experiment.path,
            f"published: there is no usable file {name}.yaml of published numbers; the tables are "
            "made without it",
        )
        for name in published_files(layout)
        if name not in published
    ]
    tests: list[PairedTest] = []
    rows = [row for name in published_files(layout) for row in published.get(name, [])]
    if isinstance(layout, ScoreLayout):
        tables, tests = score_tables(layout, runs, rows)
    elif isinstance(layout, TimeLayout):
        tables = time_tables(layout, runs, rows)
    elif isinstance(layout, SearchLayout):
        tables = search_tables(layout, runs, rows)
    elif isinstance(layout, ClaimsLayout):
        tables = claim_tables(layout, runs, published)
    else:
        try:
            tables = settings_tables(layout, published)
        except UserError as error:
            tables = []
            problems.append(Problem(experiment.path, str(error)))
    return ExperimentTables(experiment, tables, tests), problems


def write_tables(made: ExperimentTables, folder: Path) -> list[Path]:
    """Write NAME.md, NAME.tex, NAME.csv and NAME_tests.csv (if there are tests); their paths."""
    name = made.experiment.name
    texts = {
        f"{name}.md": markdown(name, made.tables),
        f"{name}.tex": latex(name, made.tables),
        f"{name}.csv": csv_table(name, made.tables),
    }
    if made.tests:
        texts[f"{name}_tests.csv"] = csv_tests(name, made.tests)
    else:
        (folder / f"{name}_tests.csv").unlink(missing_ok=True)  # of runs that are gone
    return [write_text(folder / file, text) for file, text in texts.items()]
