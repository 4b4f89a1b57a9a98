"""How results are laid out: the `layout` of experiments/*.yaml. No torch here."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig

from dylora.errors import UserError
from dylora.results.runs import SCHEMA_DEFAULTS, Problem
from dylora.results.typed_yaml import read_yaml, typed
from dylora.suite.config import Architecture, Protocol, Truncation

CONF = Path(__file__).parents[2] / "conf"


@dataclass
class Arm:
    """Runs that belong together, whatever their task, model and seed, and a name for them."""

    name: str = MISSING  # that of the published rows which stand beside it
    match: dict[str, Any] = field(default_factory=dict)  # option -> value, such as method.name
    ranks: list[int] = field(default_factory=list)  # a row for each; none: it has no ranks
    mean_of: list[int] = field(default_factory=list)  # a row with the mean over these ranks
    own_rank: bool = False  # each rank is that of a run trained at this rank, not of a truncation
    spread: bool = False  # the score at max_rank stands at all ranks: one rank for every use
    truncation: Truncation | None = None  # of a LoRA, cut in another way than as it was trained
    against: list[str] = field(default_factory=list)  # arms to test against at the same rank

    def scored_rank(self, rank: int, max_rank: int) -> int:
        """The rank of a run of `max_rank` whose score stands at `rank`."""
        return max_rank if self.spread else rank


@dataclass
class ScoreLayout:
    """Scores by rank and method (rows) and task and metric (columns)."""

    title: str = MISSING
    model: str = MISSING  # the paper's; its table comes first
    architecture: Architecture = MISSING
    protocol: Protocol = Protocol.paper  # that of the published rows
    columns: dict[str, str] = field(default_factory=dict)  # task.metric -> heading
    fractions: list[str] = field(default_factory=list)  # columns in parts of one, not of a hundred
    arms: list[Arm] = field(default_factory=list)
    parameters: bool = False  # a first column with what is trained or stored, head included
    seconds: bool = False  # a first column with the time of training
    bar: str | None = None  # the arm that the others are measured against, in a table of its own
    average: bool = False  # a last column with the mean of the others
    best: bool = False  # rows with each arm's best value over ranks and seeds
    ranks_as_columns: bool = False
    published: list[str] = field(default_factory=list)  # files in results/reference
    notes: list[str] = field(default_factory=list)

    @property
    def bar_arm(self) -> Arm | None:
        """The arm that `bar` names."""
        return next((arm for arm in self.arms if arm.name == self.bar), None)


@dataclass
class TimeLayout:
    """Seconds until there is a usable adapter at every rank: one run against one for each rank."""

    title: str = MISSING
    model: str = MISSING
    architecture: Architecture = MISSING
    protocol: Protocol = Protocol.paper
    columns: dict[str, str] = field(default_factory=dict)  # task -> heading of its row
    once: Arm = field(default_factory=Arm)
    sweep: Arm = field(default_factory=Arm)
    published: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class SearchLayout:
    """The best rank: by one run with all of them, or by a run for each power of two."""

    title: str = MISSING
    model: str = MISSING
    architecture: Architecture = MISSING
    protocol: Protocol = Protocol.paper
    columns: dict[str, str] = field(default_factory=dict)  # task.metric -> heading
    max_ranks: list[int] = field(default_factory=list)  # a block for each; arms need no ranks
    once: Arm = field(default_factory=Arm)
    sweep: Arm = field(default_factory=Arm)
    published: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Measure(StrEnum):
    """What a claim compares."""

    score = "score"  # the mean over the ranks of the arms
    best = "best"  # the score at each arm's best rank
    time = "time"  # of training all that an arm names


@dataclass
class PaperClaim:
    """That one arm is better than another, or not much worse, or faster."""

    text: str = MISSING
    ours: Arm = field(default_factory=Arm)
    theirs: Arm = field(default_factory=Arm)
    measure: Measure = Measure.score
    columns: list[str] = field(default_factory=list)  # of the layout; none: all
    margin: float = 0.0  # points by which ours may be worse
    at_least: float = 1.0  # how many times as long theirs must take
    ours_in: str = MISSING  # file of published numbers, whose rows have the arm's name
    theirs_in: str = MISSING
    at: list[str] = field(default_factory=list)  # ranks of the published rows, if not the arms'
    in_one_row: list[str] = field(default_factory=list)  # columns of a published row with both


@dataclass
class ClaimsLayout:
    """Claims, each with the published numbers, ours, and a verdict."""

    title: str = MISSING
    model: str = MISSING
    architecture: Architecture = MISSING
    protocol: Protocol = Protocol.paper
    columns: dict[str, str] = field(default_factory=dict)  # task.metric -> heading
    by_task: bool = False  # a row for each task instead of one for their mean
    own_runs: bool = True  # false: it judges the runs of other experiments and has no grid
    claims: list[PaperClaim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class SettingsLayout:
    """Hyper-parameters (rows) by task (columns), as the recipes in conf/ set them."""

    title: str = MISSING
    models: dict[Protocol, dict[str, list[str]]] = field(default_factory=dict)  # model -> tasks
    options: dict[str, str] = field(default_factory=dict)  # option -> heading of its row
    published: dict[Protocol, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


RunsLayout = ScoreLayout | TimeLayout | SearchLayout | ClaimsLayout  # made from runs
Layout = RunsLayout | SettingsLayout
KINDS: dict[str, type[Layout]] = {
    "scores": ScoreLayout,
    "time": TimeLayout,
    "search": SearchLayout,
    "claims": ClaimsLayout,
    "settings": SettingsLayout,
}


@dataclass(frozen=True)
class Experiment:
    """One file of experiments/: its name is the file's."""

    name: str
    path: Path
    layout: Layout


def arms_of(layout: Layout) -> list[Arm]:
    """The arms of a layout that is made from runs."""
    if isinstance(layout, ScoreLayout):
        return layout.arms
    if isinstance(layout, ClaimsLayout):
        return [arm for claim in layout.claims for arm in (claim.ours, claim.theirs)]
    return [] if isinstance(layout, SettingsLayout) else [layout.once, layout.sweep]


def published_files(layout: Layout) -> list[str]:
    """The names of all files of published numbers that a layout shows."""
    if isinstance(layout, SettingsLayout):
        names = [name for names in layout.published.values() for name in names]
    elif isinstance(layout, ClaimsLayout):
        names = [name for claim in layout.claims for name in (claim.ours_in, claim.theirs_in)]
    else:
        names = layout.published
    return list(dict.fromkeys(names))


def known_tasks() -> set[str]:
    """The tasks that conf/ describes."""
    return {path.stem for path in (CONF / "task").glob("*.yaml")}


def load_experiments(
    folder: Path, tasks: Collection[str], only: str | None = None
) -> tuple[list[Experiment], list[Problem]]:
    """The experiments of a folder by name, or the one named `only`, and what is wrong with any.

    A file that cannot be read is left out; an experiment with a task that is not among `tasks`
    is kept without the columns of that task. Raises UserError if there is no `only`.
    """
    experiments, problems = [], []
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = read_yaml(path)
            layout = _typed_layout(content)
        except UserError as error:
            problems.append(Problem(path, str(error)))
            continue
        unknown = sorted(set(_named_tasks(content)) - set(tasks))
        problems += [Problem(path, _unknown_task(task, tasks)) for task in unknown]
        _leave_out(layout, unknown)
        experiments.append(Experiment(path.stem, path, layout))
    if only is None:
        return experiments, problems
    chosen = [experiment for experiment in experiments if experiment.name == only]
    if not chosen:
        names = ", ".join(experiment.name for experiment in experiments)
        raise UserError(f"experiment={only}: must be one of {names}")
    return chosen, problems


def _leave_out(layout: Layout, tasks: Collection[str]) -> None:
    if isinstance(layout, SettingsLayout):
        for models in layout.models.values():
            models |= {m: [t for t in names if t not in tasks] for m, names in models.items()}
    else:
        layout.columns = {k: v for k, v in layout.columns.items() if k.split(".")[0] not in tasks}


def _typed_layout(content: Any) -> Layout:
    """The `layout` of an experiment's file. Raises UserError."""
    values = content.get("layout") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise UserError("has no layout; add one as in the other files of this folder")
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise UserError(f"layout.kind={kind}: must be one of {', '.join(KINDS)}")
    layout = typed(KINDS[kind], DictConfig(values))
    _check(layout)
    return layout


def _check(layout: Layout) -> None:
    """Raises UserError for what the types cannot tell."""
    if isinstance(layout, ScoreLayout | SearchLayout | ClaimsLayout):
        for key in layout.columns:
            if "." not in key:
                raise UserError(f"layout.columns: {key} must be task.metric, as in mrpc.accuracy")
    for arm in arms_of(layout):
        if isinstance(layout, TimeLayout | ClaimsLayout) and not arm.ranks:
            raise UserError(f"arm {arm.name!r} names no ranks; add ranks: [1, 2, 4, 8]")
        for option in arm.match:
            if not _is_option(option):
                raise UserError(f"arm {arm.name!r} matches {option}, which is no option of a run")
    names = [arm.name for arm in arms_of(layout)]
    unknown = [name for arm in arms_of(layout) for name in arm.against if name not in names]
    if unknown:
        raise UserError(f"against: there is no arm {unknown[0]!r}; write one of {names}")
    tested = [arm.name for arm in arms_of(layout) if arm.spread and arm.against]
    if tested:
        raise UserError(f"arm {tested[0]!r} spreads one rank over all; leave out its against")
    if isinstance(layout, ScoreLayout) and layout.bar not in (None, *names):
        raise UserError(f"bar: there is no arm {layout.bar!r}; write one of {names}")


def _is_option(name: str) -> bool:
    place: Any = SCHEMA_DEFAULTS
    for key in name.split("."):
        if not isinstance(place, dict) or key not in place:
            return False
        place = place[key]
    return True


def _named_tasks(content: dict[str, Any]) -> Iterator[str]:
    """Tasks of the layout's columns and of the grids."""
    layout = content["layout"]
    yield from (str(key).split(".")[0] for key in layout.get("columns", {}))
    for models in layout.get("models", {}).values():
        for tasks in models.values():
            yield from tasks
    sweeper = content.get("hydra", {}).get("sweeper", {})
    for grid in [*sweeper.get("grids", []), *sweeper.get("smoke", [])]:
        value = grid.get("task", [])
        yield from value if isinstance(value, list) else [value]


def _unknown_task(task: str, tasks: Collection[str]) -> str:
    near = get_close_matches(task, tasks, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(tasks))}"
    return (
        f"names the unknown task {task}, which is left out; {meant} (a new task needs a file "
        f"conf/task/{task}.yaml)"
    )
