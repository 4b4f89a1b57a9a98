"""How far experiments are, from the records alone: what their tables have and still lack."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from dylora.results.composing import compose_settings
from dylora.results.cost import Estimator, duration, option_of
from dylora.results.curves import SCORED
from dylora.results.layout import Arm, Experiment, SettingsLayout, arms_of
from dylora.results.runs import Run
from dylora.suite.config import Protocol
from dylora.suite.sweep import jobs

Options = dict[str, str]  # option -> value, of one planned run


@dataclass(frozen=True)
class PlannedRuns:
    """The planned runs of an experiment with one model, and what became of each."""

    model: str
    protocol: Protocol
    planned: list[tuple[Options, str]]  # options, status; a status may be `missing`

    @property
    def counts(self) -> Counter[str]:
        """Number of runs by status: done, running, failed, interrupted, missing."""
        return Counter(status for _, status in self.planned)

    def commands(self) -> list[str]:
        """What to type for each run that is not done."""
        return [self._command(options) for options, status in self.planned if status != "done"]

    def _command(self, options: Options) -> str:
        words = [f"{key}={value}" for key, value in options.items()]
        return " ".join(["dylora run", *words, f"model={self.model}"])


def planned_runs(experiment: Experiment, runs: Iterable[Run]) -> list[PlannedRuns]:
    """With the experiment's own model, then with each other model that has any of its runs.

    A planned run is done when there is a run of the layout's protocol, without limits, that has the
    options of the grid and those of an arm: the table's view, in which a warm start counts. Empty
    for an experiment without a grid.
    """
    layout = experiment.layout
    if isinstance(layout, SettingsLayout):
        return []
    content: Any = OmegaConf.to_container(OmegaConf.load(experiment.path))
    grids = content.get("hydra", {}).get("sweeper", {}).get("grids", [])
    planned = [dict(word.split("=", 1) for word in job) for job in jobs(grids, {})] if grids else []
    arms = arms_of(layout)
    fitting: dict[str, dict[tuple[str, ...], list[Run]]] = {layout.model: {}}
    tasks = {options.get("task") for options in planned}
    for run in runs:
        if run.task in tasks and not run.limits and run.option("protocol") == layout.protocol:
            by_key = fitting.setdefault(run.model, {})
            by_key.setdefault((run.task, run.method, str(run.seed)), []).append(run)
    found = [
        PlannedRuns(
            model,
            layout.protocol,
            [(options, _status(options, by_key, arms)) for options in planned],
        )
        for model, by_key in fitting.items()
        if planned
    ]
    return [p for p in found if p.model == layout.model or set(p.counts) != {"missing"}]


def time_left(progress: PlannedRuns, estimator: Estimator) -> str:
    """In words, behind the counts: how long the runs that are not done would take in turn."""
    left = [options for options, status in progress.planned if status != "done"]
    settings = Counter(tuple(o for o in options.items() if o[0] != "seed") for options in left)
    known, rough, unknown = 0.0, set(), set()
    for chosen, seeds in settings.items():
        found = estimator(option_of(_settings(progress, dict(chosen))))
        task = dict(chosen)["task"]
        known += seeds * found.seconds if found else 0
        if found is None:
            unknown.add(task)
        elif found.rough:
            rough.add(task)
    if not known:
        return "; time left unknown, as no run like them is done" if left else ""
    text = f"; about {duration(known)} left in turn"
    text += f", roughly for {', '.join(sorted(rough))}" if rough else ""
    return f"{text}, and unknown for {', '.join(sorted(unknown))}" if unknown else text


def _settings(progress: PlannedRuns, options: Options) -> DictConfig:
    more = {k: v for k, v in options.items() if k not in ("task", "model", "protocol")}
    return compose_settings(options["task"], progress.model, progress.protocol, more)


def _status(options: Options, by_key: dict[tuple[str, ...], list[Run]], arms: Sequence[Arm]) -> str:
    """The best of the statuses of the runs that the options can mean."""
    key = tuple(options.get(name, "") for name in ("task", "method", "seed"))
    statuses = {
        run.record["status"]
        for run in by_key.get(key, [])
        if _has(run, options) and any(_is_of(run, options, arm) for arm in arms)
    }
    order = ("done", "running", "interrupted", "failed")
    return next((status for status in order if status in statuses), "missing")


def _has(run: Run, options: Options) -> bool:
    """Whether the run has the options of a grid that are not choices of a group."""
    plain = {k: v for k, v in options.items() if "." in k and k != SCORED}
    return all(run.option(name) == yaml.safe_load(value) for name, value in plain.items())


def _is_of(run: Run, options: Options, arm: Arm) -> bool:
    """Whether the run is one of the arm's; what the grid says itself has been looked at."""
    return all(run.option(k) == v for k, v in arm.match.items() if k not in options)
