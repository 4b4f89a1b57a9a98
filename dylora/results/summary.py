"""results/REPORT.md: what the records say, written like a short paper, every number computed.

The text around the numbers is in templates/REPORT.md.j2. No torch, no training.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dylora.errors import UserError
from dylora.files import write_text
from dylora.methods import METHODS
from dylora.results.curves import seconds
from dylora.results.loading import Material
from dylora.results.names import model_name
from dylora.results.runs import Problem, Run
from dylora.results.standing import any_rank_standing
from dylora.results.tables import build_tables
from dylora.results.tables.cells import number
from dylora.results.tables.render import markdown_table

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = (  # experiments, in this order
    "any_rank",
    "any_rank_texts",
    "sandwich",
    "learning_rate",
    "claims",
    "each_rank",
    "appendix_a",
)


@dataclass(frozen=True)
class Group:
    """Finished runs of one model under one protocol, whole or all with the same limits."""

    model: str
    protocol: str
    limits: str
    tasks: str
    methods: str
    seeds: str
    runs: int
    hours: str


def write_summary(path: Path, material: Material) -> list[Problem]:
    """Write the page, whole or not at all; the material's problems, and what else was left out.

    Raises UserError without jinja2.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UserError("the summary needs jinja2: pip install 'dylora[report]'") from error
    runs, problems = material.runs, list(material.problems)
    tables = {}
    by_name = {experiment.name: experiment for experiment in material.experiments}
    for name in SHOWN:
        if name in by_name:
            made, more = build_tables(by_name[name], runs, material.published)
            measured = [table for table in made.tables if table.measured]
            brief = [table for table in measured if table.brief] or measured
            tables[name] = [markdown_table(table, 3) for table in brief]
            problems += more
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("REPORT.md.j2").render(
        groups=groups(runs),
        tables=tables,
        standing=any_rank_standing(material),
        number=lambda value: number(value, 1),
    )
    write_text(path, text)
    return problems


def groups(runs: Sequence[Run]) -> list[Group]:
    """The finished runs by model, protocol and limits."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.done:
            limits = ", ".join(f"{name}={value}" for name, value in run.limits.items())
            key = (run.model, str(run.option("protocol")), limits)
            found.setdefault(key, []).append(run)
    return [_group(*key, same) for key, same in sorted(found.items())]


def _group(model: str, protocol: str, limits: str, runs: Sequence[Run]) -> Group:
    return Group(
        model=model_name(model),
        protocol=protocol,
        limits=limits or "none",
        tasks=_listed(run.task for run in runs),
        methods=_listed(METHODS[run.method].label for run in runs),
        seeds=_listed(str(run.seed) for run in runs),
        runs=len(runs),
        hours=number(sum(seconds(run, own=False) for run in runs) / 3600, 1),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
