"""One HTML page from the records, complete in itself: tables, rank curves, every run. No torch.

Data reaches the page through Jinja's escaping only, and the page's policy runs no script and
applies no style but its own two, by their hashes.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dylora.errors import UserError
from dylora.files import write_text
from dylora.metrics import metric_named
from dylora.results.curves import Panel, Series, band, panels, seeds
from dylora.results.layout import Experiment
from dylora.results.published import Published
from dylora.results.run_view import view_of
from dylora.results.runs import Problem, Run
from dylora.results.status import PlannedRuns, planned_runs
from dylora.results.tables import Table, build_tables

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """An experiment on the page."""

    name: str
    title: str
    tables: list[Table]
    progress: list[PlannedRuns]


def write_report(
    path: Path,
    runs: Sequence[Run],
    experiments: Sequence[Experiment],
    published: dict[str, list[Published]],
    problems: Sequence[Problem],
) -> list[Problem]:
    """Write the page, whole or not at all; returns `problems` with what else had to be left out.

    Raises UserError without jinja2.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise UserError("the report needs jinja2: pip install 'dylora[report]'") from error
    sections, found = [], list(problems)
    for experiment in sorted(experiments, key=_order):
        made, more = build_tables(experiment, runs, published)
        found += more
        progress = planned_runs(experiment, runs)
        sections.append(Section(experiment.name, experiment.layout.title, made.tables, progress))
    views = [view_of(number, run) for number, run in enumerate(runs)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style, script = ((TEMPLATES / f"report.{end}").read_text("utf-8") for end in ("css", "js"))
    page = environment.get_template("report.html.j2").render(
        facts=_facts(runs),
        experiments=sections,
        panels=[_panel_data(panel) for panel in panels(runs)],
        runs=views,
        numbers={view.name: view.number for view in views},
        samples={view.number: view.samples for view in views if len(view.ranks) > 1},
        problems=found,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    write_text(path, page)
    return found


def _order(experiment: Experiment) -> tuple[bool, bool, str]:
    """What is claimed and what became of it, the paper's tables in their order, then the rest."""
    name = experiment.name
    return name != "claims", not name.startswith("table"), name


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


def _panel_data(panel: Panel) -> dict[str, Any]:
    """What the page's script draws of a panel."""
    return {
        "title": panel.title,
        "metrics": [{"name": name, "label": metric_named(name).axis} for name in panel.metrics],
        "series": [_series_data(series, panel.metrics) for series in panel.series],
    }


def _series_data(series: Series, metrics: Sequence[str]) -> dict[str, Any]:
    points: dict[str, list[dict[str, float | None]]] = {}
    counts = {len(same) for same in series.runs.values()}
    for metric in metrics:
        for rank, summary in series.summary(metric).items():
            low, high = band(summary, metric) or (None, None)
            point = {"rank": rank, "mean": summary.mean, "low": low, "high": high, "n": summary.n}
            points.setdefault(metric, []).append(point)
    return {
        "name": series.name,
        "look": series.look % 7,
        "flat": series.flat,
        "seeds": seeds(counts),
        "points": points,
    }
