"""One HTML page from the records, complete in itself: answer, chart, claims, tables, runs.

Data reaches the page through Jinja's escaping only, and the page's policy runs no script and
applies no style but its own two, by their hashes. The charts are drawn by the page's own script: a
library of charts would have to be a copy in this repository, or a megabyte from a Python package.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dylora.errors import UserError
from dylora.files import write_text
from dylora.results.answer import QUESTION, answer, compared
from dylora.results.charts import course_chart, panel_chart
from dylora.results.curves import Panel, panels
from dylora.results.layout import ClaimsLayout, Experiment, SettingsLayout
from dylora.results.loading import Material
from dylora.results.names import model_name, task_name
from dylora.results.run_view import RunView, view_of
from dylora.results.runs import Problem, Run
from dylora.results.status import PlannedRuns, planned_runs
from dylora.results.tables import Table, build_tables
from dylora.results.tables.cells import DASH
from dylora.suite.config import Protocol

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """An experiment on the page; without a run behind it there are no tables."""

    name: str
    title: str
    tables: list[Table]
    progress: list[PlannedRuns]


@dataclass(frozen=True)
class Judged:
    """A claim of the paper and what there is on it: the heading of a cell -> its text."""

    text: str
    evidence: list[dict[str, str]]

    @property
    def verdict(self) -> str:
        """Of all tasks together, or of the first."""
        return self.evidence[0]["Verdict"].partition(" (")[0]


def write_report(path: Path, material: Material) -> list[Problem]:
    """Write the page, whole or not at all; the material's problems, and what else was left out.

    Raises UserError without jinja2.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise UserError("the report needs jinja2: pip install 'dylora[report]'") from error
    runs, problems = material.runs, list(material.problems)
    sections, claims, settings = [], [], []
    for experiment in sorted(material.experiments, key=_order):
        made, more = build_tables(experiment, runs, material.published)
        problems += more
        measured = [table for table in made.tables if table.measured]
        if isinstance(experiment.layout, ClaimsLayout):
            claims += [judged for table in measured[:1] for judged in _judged(table)]
        if isinstance(experiment.layout, SettingsLayout):
            settings += made.tables
        else:
            judging = isinstance(experiment.layout, ClaimsLayout)
            shown = measured if judging else [_with_values(table) for table in measured]
            progress = planned_runs(experiment, runs)
            sections.append(Section(experiment.name, experiment.layout.title, shown, progress))
    views = [view_of(number, run) for number, run in enumerate(runs)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style, script = ((TEMPLATES / f"report.{end}").read_text("utf-8") for end in ("css", "js"))
    drawn = panels(runs)
    charted = _headline_first(drawn)
    page = environment.get_template("report.html.j2").render(
        question=QUESTION,
        answer=answer(drawn),
        facts=_facts(runs),
        claims=claims,
        experiments=sections,
        settings=settings,
        panels=[panel_chart(panel) for panel in charted],
        aside=[number for number, panel in enumerate(charted) if number and _is_aside(panel)],
        runs=_by_place(views, runs),
        courses={view.number: [course_chart(course) for course in view.courses] for view in views},
        numbers={view.name: view.number for view in views},
        samples={view.number: view.samples for view in views if len(view.ranks) > 1},
        problems=problems,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    write_text(path, page)
    return problems


def _headline_first(drawn: Sequence[Panel]) -> list[Panel]:
    """The panel that shows most of what the answer is about comes first."""
    first = max(compared(drawn) or drawn, key=lambda panel: len(panel.series), default=None)
    return [panel for panel in drawn if panel is first] + [p for p in drawn if p is not first]


def _is_aside(panel: Panel) -> bool:
    """Whether it is folded away: of another protocol than the paper's, or a trial."""
    return panel.protocol != Protocol.paper or bool(panel.limits)


def _judged(table: Table) -> list[Judged]:
    """The claims of a table: a block each."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in table.rows:
        texts = dict(zip(table.header[2:], (cell.text for cell in row.cells), strict=True))
        found.setdefault(row.name, []).append({table.header[1]: row.detail, **texts})
    return [Judged(text, evidence) for text, evidence in found.items()]


def _with_values(table: Table) -> Table:
    """The table without its rows and columns that no run of ours has a value for."""
    ours = [row for row in table.rows if row.published is None]
    columns = [i for i in range(len(table.header) - 2) if any(row.cells[i].runs for row in ours)]
    rows = [
        replace(row, cells=[row.cells[i] for i in columns])
        for row in table.rows
        if any(row.cells[i].text != DASH for i in columns)
    ]
    header = [*table.header[:2], *(table.header[2 + i] for i in columns)]
    return replace(table, header=header, rows=rows)


def _by_place(views: Sequence[RunView], runs: Sequence[Run]) -> dict[str, list[RunView]]:
    """The runs by task and model, as headings say them."""
    found: dict[str, list[RunView]] = {}
    for view, run in zip(views, runs, strict=True):
        found.setdefault(f"{task_name(run.task)}, {model_name(run.model)}", []).append(view)
    return found


def _order(experiment: Experiment) -> tuple[bool, bool, bool, str]:
    """What the question is about, the claims, the paper's tables in their order, then the rest."""
    name = experiment.name
    return name != "any_rank", name != "claims", not name.startswith("table"), name


def _hash(text: str) -> str:
    """As a content security policy names what it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    done = [run for run in runs if run.done]
    hours = sum(sum(run.record["times"].values()) for run in done) / 3600
    counts = {
        "runs done": len(done),
        "not done": len(runs) - len(done),
        "tasks": len({run.task for run in done}),
        "models": len({run.model for run in done}),
        "methods": len({run.method for run in done}),
        "seeds": len({run.seed for run in done}),
    }
    facts = [(name, f"{count:,}") for name, count in counts.items()]
    days = sorted(str(run.record.get("started", ""))[:10] for run in done)
    return [*facts, ("hours of computing", f"{hours:,.1f}"), *[("last run", d) for d in days[-1:]]]
