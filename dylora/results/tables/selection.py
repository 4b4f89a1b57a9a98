"""Which runs stand behind a value: parts with one model each, arms, columns, repetitions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dylora.metrics import metric_named, metrics_for
from dylora.metrics.base import Metric
from dylora.results.layout import Arm
from dylora.results.runs import Run
from dylora.suite.config import Architecture, Kind


@dataclass(frozen=True)
class Column:
    """A metric of a task."""

    task: str
    metric: str
    heading: str

    @property
    def key(self) -> str:
        return f"{self.task}.{self.metric}"

    @property
    def about(self) -> Metric:
        """What the metric is: its unit, its direction, its paired test."""
        return metric_named(self.metric)


@dataclass(frozen=True)
class Part:
    """The finished runs of one model, either in full or with the same limits, by task."""

    model: str
    limits: tuple[tuple[str, int], ...]
    runs: dict[str, list[Run]]

    @property
    def name(self) -> str:
        """For captions: the model, and that these are trials if they are."""
        cut = ", ".join(f"{name}={value}" for name, value in self.limits)
        return f"{self.model}, trial runs with {cut}" if cut else self.model


def parts_of(runs: Sequence[Run], model: str, architecture: Architecture) -> list[Part]:
    """The paper's model first, be there runs or not, then what else was run, trials last."""
    found: dict[tuple[str, tuple[tuple[str, int], ...]], dict[str, list[Run]]] = {(model, ()): {}}
    for run in runs:
        generates = run.option("task.kind") == Kind.generation
        if run.done and generates == (architecture == Architecture.decoder):
            key = (run.model, tuple(run.limits.items()))
            found.setdefault(key, {}).setdefault(run.task, []).append(run)
    order = sorted(found, key=lambda key: (bool(key[1]), key[0] != model, key))
    return [Part(*key, found[key]) for key in order]


def columns_of(headings: dict[str, str], part: Part) -> list[Column]:
    """The layout's columns; where the part has none of their tasks, the tasks that it has."""
    keys = {tuple(key.split(".", 1)): heading for key, heading in headings.items()}
    columns = [Column(task, metric, heading) for (task, metric), heading in keys.items()]
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
    """The repetitions that an arm means, for each of its ranks (0 for an arm without ranks)."""
    matching = [r for r in runs if all(r.option(k) == v for k, v in arm.match.items())]
    if not arm.own_rank:
        chosen, left_out = _repetitions(matching)
        return Selection(dict.fromkeys(arm.ranks or [0], chosen), left_out)
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


def values_of(selection: Selection, column: Column) -> dict[int, dict[int, tuple[Run, float]]]:
    """rank -> seed -> the run and its score there, in the unit of the tables."""
    found: dict[int, dict[int, tuple[Run, float]]] = {}
    for rank, by_seed in selection.chosen.items():
        for seed, run in sorted(by_seed.items()):
            value = run.scores.get(rank, {}).get(column.metric)
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
