"""How results are laid out: experiments/*.yaml, and published numbers from results/reference/."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dylora.errors import UserError
from dylora.results.runs import SCHEMA_DEFAULTS, Problem
from dylora.suite.cli import explain
from dylora.suite.config import Architecture

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML was built with it
CONF = Path(__file__).parents[2] / "conf"


class Center(StrEnum):
    """What stands for the seeds: the papers take the median for GLUE, the mean for generation."""

    median = "median"
    mean = "mean"


@dataclass
class Arm:
    """Runs that belong together, whatever their task, model and seed, and a name for them."""

    name: str = MISSING
    match: dict[str, Any] = field(default_factory=dict)  # option -> value, such as method.name
    ranks: list[int] = field(default_factory=list)  # the rows to show; none: it has no ranks
    own_rank: bool = False  # each rank is that of a run trained at this rank, not of a truncation
    against: list[str] = field(default_factory=list)  # arms to test against at the same rank


@dataclass
class ScoreLayout:
    """Scores by method and rank (rows) and task and metric (columns)."""

    title: str = MISSING
    model: str = MISSING  # the paper's; its table comes first
    architecture: Architecture = MISSING
    columns: dict[str, str] = field(default_factory=dict)  # task.metric -> heading
    arms: list[Arm] = field(default_factory=list)
    average: bool = False  # a last column with the mean of the others
    best: bool = False  # rows with each arm's best rank
    centers: list[Center] = field(default_factory=lambda: [Center.mean])  # one table for each
    published: list[str] = field(default_factory=list)  # files in results/reference
    notes: list[str] = field(default_factory=list)


@dataclass
class TimeLayout:
    """Seconds until there is a usable adapter at every rank: one run against one for each rank."""

    title: str = MISSING
    model: str = MISSING
    architecture: Architecture = MISSING
    columns: dict[str, str] = field(default_factory=dict)  # task -> heading of its row
    once: Arm = field(default_factory=Arm)
    sweep: Arm = field(default_factory=Arm)
    published: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class SettingsLayout:
    """Hyper-parameters (rows) by task (columns), as the recipes in conf/ set them."""

    title: str = MISSING
    models: dict[str, list[str]] = field(default_factory=dict)  # model -> tasks
    options: dict[str, str] = field(default_factory=dict)  # option -> heading of its row
    published: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Layout = ScoreLayout | TimeLayout | SettingsLayout
KINDS: dict[str, type[Layout]] = {
    "scores": ScoreLayout,
    "time": TimeLayout,
    "settings": SettingsLayout,
}


@dataclass(frozen=True)
class Experiment:
    """One file of experiments/: its name is the file's."""

    name: str
    path: Path
    layout: Layout


class Confidence(StrEnum):
    """Of a published value: read in its source, or told by someone who has read it."""

    primary = "primary"
    medium = "medium"


@dataclass
class Published:
    """Numbers of one source, as printed there ("87.5±.3"), never measured here."""

    models: list[str] = MISSING
    name: str = MISSING
    rank: str = ""
    source: str = MISSING
    confidence: Confidence = MISSING
    values: dict[str, str] = field(default_factory=dict)  # column -> text


@dataclass
class _PublishedFile:
    rows: list[Published] = field(default_factory=list)


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
            content = _read_yaml(path)
            layout = _typed_layout(content)
        except UserError as error:
            problems.append(Problem(path, str(error)))
            continue
        unknown = sorted(set(_named_tasks(content)) - set(tasks))
        problems += [Problem(path, _unknown_task(task, tasks)) for task in unknown]
        if isinstance(layout, ScoreLayout | TimeLayout):
            kept = {k: v for k, v in layout.columns.items() if k.split(".")[0] not in unknown}
            layout.columns = kept
        else:
            layout.models = {
                m: [t for t in names if t not in unknown] for m, names in layout.models.items()
            }
        experiments.append(Experiment(path.stem, path, layout))
    if only is None:
        return experiments, problems
    chosen = [experiment for experiment in experiments if experiment.name == only]
    if not chosen:
        names = ", ".join(experiment.name for experiment in experiments)
        raise UserError(f"experiment={only}: must be one of {names}")
    return chosen, problems


def load_published(folder: Path) -> tuple[dict[str, list[Published]], list[Problem]]:
    """Published numbers by the name of their file; a file with a fault is left out and reported."""
    found: dict[str, list[Published]] = {}
    problems = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            rows = _read_yaml(path)
            if not isinstance(rows, list):
                raise UserError("must be a list of rows (models, name, source, confidence, values)")
            found[path.stem] = _typed(_PublishedFile, {"rows": rows}).rows
        except UserError as error:
            problems.append(Problem(path, str(error)))
    return found, problems


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read; mend it ({error})") from error


def _typed(schema: type, values: Any) -> Any:
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        raise UserError(f"{schema.__name__}: {explain(error)}; mend the file") from error


def _typed_layout(content: Any) -> Layout:
    """The `layout` of an experiment's file. Raises UserError."""
    values = content.get("layout") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise UserError("has no layout; add one as in the other files of this folder")
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise UserError(f"layout.kind={kind}: must be one of {', '.join(KINDS)}")
    layout = _typed(KINDS[kind], DictConfig(values))
    if isinstance(layout, ScoreLayout):
        for key in layout.columns:
            if "." not in key:
                raise UserError(f"layout.columns: {key} must be task.metric, as in mrpc.accuracy")
    for arm in _arms(layout):
        if isinstance(layout, TimeLayout) and not arm.ranks:
            raise UserError(f"arm {arm.name!r} names no ranks; add ranks: [1, 2, 4, 8]")
        for option in arm.match:
            if not _is_option(option):
                raise UserError(f"arm {arm.name!r} matches {option}, which is no option of a run")
    names = [arm.name for arm in _arms(layout)]
    unknown = [name for arm in _arms(layout) for name in arm.against if name not in names]
    if unknown:
        raise UserError(f"against: there is no arm {unknown[0]!r}; write one of {names}")
    return layout


def _arms(layout: Layout) -> list[Arm]:
    if isinstance(layout, ScoreLayout):
        return layout.arms
    return [layout.once, layout.sweep] if isinstance(layout, TimeLayout) else []


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
    for tasks in layout.get("models", {}).values():
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
