"""Which runs stand behind a value: parts with one model each, arms, columns, repetitions."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dylora.metrics import metric_named, metrics_for
from dylora.metrics.base import Metric
from dylora.results.layout import Arm, ClaimsLayout, RunsLayout, ScoreLayout, SearchLayout
from dylora.results.names import model_name
from dylora.results.published import Published
from dylora.results.runs import Run
from dylora.suite.config import Architecture, Kind, Protocol

Values = dict[int, dict[int, tuple[Run, float]]]  # rank -> seed -> run and score


@dataclass(frozen=True)
class Column:
    """A metric of a task."""

    task: str
    metric: str
    heading: str
    fraction: bool = False  # shown in parts of one, as the papers print TER

    @property
    def key(self) -> str:
        return f"{self.task}.{self.metric}"

    @property
    def about(self) -> Metric:
        """What the metric is: its unit, its direction, its paired test."""
        metric = metric_named(self.metric)
        if not self.fraction:
            return metric
        unit = replace(metric.unit, scale=metric.unit.scale / 100, points=False)
        return replace(metric, unit=unit)


@dataclass(frozen=True)
class Part:
    """The finished runs of one model and protocol, either in full or with the same limits."""

    model: str
    protocol: Protocol
    limits: tuple[tuple[str, int], ...]
    runs: dict[str, list[Run]]  # by task

    @property
    def name(self) -> str:
        """For captions: the model and the protocol, and that these are trials if they are."""
        cut = ", ".join(f"{name}={value}" for name, value in self.limits)
        trial = f", trial runs with {cut}" if cut else ""
        return f"{model_name(self.model)}, protocol={self.protocol}{trial}"

    def published(self, layout: RunsLayout, rows: Sequence[Published]) -> list[Published]:
        """The rows that may stand beside these runs: of the same protocol, not beside trials."""
        return list(rows) if self.protocol == layout.protocol and not self.limits else []


def parts_of(runs: Sequence[Run], layout: RunsLayout) -> list[Part]:
    """The runs that a layout can show, by model, protocol and limits.

    The paper's model in the layout's protocol comes first, be there runs or not; trials come last.
    """
    Key = tuple[str, Protocol, tuple[tuple[str, int], ...]]
    first: Key = (layout.model, layout.protocol, ())
    found: dict[Key, dict[str, list[Run]]] = {first: {}}
    tasks = {key.split(".")[0] for key in layout.columns}
    for run in runs:
        if run.done and _can_show(layout.architecture, tasks, run):
            key = (run.model, Protocol(run.option("protocol")), tuple(run.limits.items()))
            found.setdefault(key, {}).setdefault(run.task, []).append(run)

    def place(key: Key) -> tuple[Any, ...]:
        return bool(key[2]), key[1] != layout.protocol, key[0] != layout.model, key

    return [Part(*key, found[key]) for key in sorted(found, key=place)]


def _can_show(architecture: Architecture, tasks: Collection[str], run: Run) -> bool:
    """A run of one of the tasks, or of a toy task of their kind, which stands in for them."""
    generates = run.option("task.kind") == Kind.generation
    fits = generates == (architecture == Architecture.decoder)
    return fits and (run.task in tasks or run.option("task.toy"))


def columns_of_layout(layout: ScoreLayout | SearchLayout | ClaimsLayout) -> list[Column]:
    """The columns that a layout names."""
    fractions = layout.fractions if isinstance(layout, ScoreLayout) else []
    columns = []
    for key, heading in layout.columns.items():
        task, metric = key.split(".", 1)
        columns.append(Column(task, metric, heading, key in fractions))
    return columns


def columns_of(layout: ScoreLayout | SearchLayout, part: Part) -> list[Column]:
    """The layout's columns; those of its toy tasks where the part has only these."""
    columns = columns_of_layout(layout)
    if not part.runs or any(column.task in part.runs for column in columns):
        return columns
    found = []
    for task, runs in part.runs.items():
        metrics = [runs[0].option("task.select_metric")]
        if runs[0].option("task.kind") == Kind.generation:
            asked = runs[0].option("task.metrics")
            metrics = [name for name in metrics_for(Kind.generation) if name in asked]
        found += [Column(task, metric, f"{task} {metric}") for metric in metrics]
    return found


@dataclass
class Selection:
    """The runs of an arm on a task: rank -> seed -> run, and those that had to be left out."""

    chosen: dict[int, dict[int, Run]] = field(default_factory=dict)
    left_out: list[Run] = field(default_factory=list)


def select(arm: Arm, runs: Sequence[Run]) -> Selection:
    """The repetitions that an arm means, for each rank that they have (0: a method without ranks).

    Of runs trained at each rank only the arm's own ranks.
    """
    matching = [r for r in runs if all(r.option(k) == v for k, v in arm.match.items())]
    if not arm.own_rank:
        chosen, left_out = _repetitions(matching)
        scored = {rank for run in chosen.values() for rank in run.scores}
        return Selection(
            dict.fromkeys(arm.ranks if arm.spread else sorted(scored), chosen), left_out
        )
    selection = Selection()
    for rank in arm.ranks:
        trained = [run for run in matching if run.max_rank == rank]
        selection.chosen[rank], left_out = _repetitions(trained)
        selection.left_out += left_out
    return selection


def _repetitions(runs: Sequence[Run]) -> tuple[dict[int, Run], list[Run]]:
    """Runs that differ in nothing but the seed: seed -> run; and the others.

    Of several settings it is those with the most seeds, of equals those that were run last.
    """
    groups: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=_started):
        groups.setdefault(run.settings_key, {})[run.seed] = run
    if not groups:
        return {}, []
    chosen = max(groups.values(), key=lambda g: (len(g), max(map(_started, g.values()))))
    return chosen, [run for run in runs if run not in chosen.values()]


def _started(run: Run) -> tuple[str, str]:
    return run.record.get("started", ""), run.signature


def values_of(arm: Arm, selection: Selection, column: Column) -> Values:
    """rank -> seed -> the run and its score there, in the unit of the tables."""
    found: Values = {}
    for rank, by_seed in selection.chosen.items():
        for seed, run in sorted(by_seed.items()):
            scored = run.truncated(arm.truncation).get(arm.scored_rank(rank, run.max_rank), {})
            value = scored.get(column.metric)
            if value is not None:
                found.setdefault(rank, {})[seed] = run, column.about.printed(value)
    return found


def settings_notes(task: str, by_arm: dict[str, Selection]) -> list[str]:
    """What a reader must know of the settings behind a task's values: arm -> selection.

    Options beyond the method that differ between the arms, and the runs that are left out because
    their settings are not those of the runs shown.
    """
    shown = {arm: run.settings for arm, s in by_arm.items() if (run := _any_run(s)) is not None}
    notes = []
    for name in sorted({name for settings in shown.values() for name in settings}):
        values = {arm: str(settings.get(name)) for arm, settings in shown.items()}
        usual = Counter(values.values()).most_common(1)[0][0]
        others = [f"{value} for {arm}" for arm, value in values.items() if value != usual]
        if others and not _is_of_method(name):
            notes.append(f"{task}: {name} is {usual}, but {', '.join(others)}.")
    used = {r.signature for s in by_arm.values() for g in s.chosen.values() for r in g.values()}
    unused: dict[str, str] = {}
    for selection in by_arm.values():
        for run in selection.left_out:
            if run.signature not in used:
                unused[run.signature] = _difference(run, selection)
    if unused:
        listed = "; ".join(f"{name} ({reason})" for name, reason in list(unused.items())[:5])
        more = f"; and {len(unused) - 5} more" if len(unused) > 5 else ""
        notes.append(
            f"{task}: not shown, as other settings have more seeds or are newer: {listed}{more}."
        )
    return notes


def _any_run(selection: Selection) -> Run | None:
    return next((run for g in selection.chosen.values() for run in g.values()), None)


def _difference(run: Run, selection: Selection) -> str:
    """The first options in which a run that is left out differs from the runs of its rank."""
    shown = next(
        (r for g in selection.chosen.values() for r in g.values() if r.max_rank == run.max_rank),
        run,
    )
    names = [n for n, value in run.settings.items() if shown.settings.get(n) != value]
    return ", ".join(f"{name}={run.settings[name]}" for name in names[:3])


def _is_of_method(name: str) -> bool:
    """Options in which the arms are meant to differ."""
    return name.startswith(("method.", "evaluate.")) or name == "train.select"
