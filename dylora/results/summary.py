"""results/REPORT.md: what the records say, written like a short paper, every number computed.

The text around the numbers is in templates/REPORT.md.j2. No torch, no training.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from dylora.errors import UserError
from dylora.files import write_text
from dylora.methods import METHODS
from dylora.results.curves import MIN_SEEDS, seconds, seeds
from dylora.results.layout import Arm, ScoreLayout
from dylora.results.loading import Material
from dylora.results.names import model_name
from dylora.results.runs import Problem, Run
from dylora.results.tables import build_tables
from dylora.results.tables.cells import number
from dylora.results.tables.findings import Findings
from dylora.results.tables.render import markdown_table
from dylora.results.tables.selection import Part, parts_of

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


@dataclass(frozen=True)
class Standing:
    """An arm of the any-rank experiment: its mean over ranks on the tasks that all arms have."""

    name: str
    mean: float
    low: float  # at the lowest rank
    top: float  # at the highest rank


@dataclass(frozen=True)
class Answer:
    """Which arm is best on average, on which tasks, and how sure that is."""

    tasks: list[str]
    seeds: str  # how many, such as "1–3 seeds"
    few: bool  # too few on some task to say more than a hint
    bar: Standing
    arms: list[Standing]  # best mean over ranks first
    left_out: list[str]  # arms that lack a task or a seed


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
            tables[name] = [markdown_table(table, 3) for table in made.tables if table.measured]
            problems += more
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    any_rank = by_name.get("any_rank")
    text = environment.get_template("REPORT.md.j2").render(
        groups=groups(runs),
        tables=tables,
        standing=standing(any_rank.layout, runs) if any_rank is not None else None,
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


def standing(layout: object, runs: Sequence[Run]) -> Answer | None:
    """The any-rank arms over the tasks and seeds for which the bar has a run at every rank.

    Arms that lack any of these are not ordered but named. None without a bar, or its runs.
    """
    if not isinstance(layout, ScoreLayout):
        return None
    part = next((p for p in parts_of(runs, layout) if p.runs and _is_own(p, layout)), None)
    bar = next((arm for arm in layout.arms if arm.name == layout.bar), None)
    if part is None or bar is None:
        return None
    values = Findings.of(layout, part).values

    def seeds_of(arm: Arm, key: str) -> set[int]:
        by_rank = values[arm.name, key]
        return set.intersection(*(set(by_rank.get(rank, {})) for rank in arm.ranks))

    common = {key: same for key in layout.columns if (same := seeds_of(bar, key))}
    if not common:
        return None
    arms = [a for a in layout.arms if all(common[key] <= seeds_of(a, key) for key in common)]

    def score(arm: Arm, rank: int) -> float:
        return fmean(
            fmean(values[arm.name, key][rank][seed][1] for seed in same)
            for key, same in common.items()
        )

    found = []
    for arm in arms:
        curve = [score(arm, rank) for rank in arm.ranks]
        found.append(Standing(arm.name, fmean(curve), curve[0], curve[-1]))
    return Answer(
        tasks=[layout.columns[key] for key in common],
        seeds=seeds(len(same) for same in common.values()),
        few=min(len(same) for same in common.values()) < MIN_SEEDS,
        bar=next(each for each in found if each.name == bar.name),
        arms=sorted((f for f in found if f.name != bar.name), key=lambda each: -each.mean),
        left_out=[arm.name for arm in layout.arms if arm not in arms],
    )


def _is_own(part: Part, layout: ScoreLayout) -> bool:
    return (part.model, part.protocol, part.limits) == (layout.model, layout.protocol, ())
