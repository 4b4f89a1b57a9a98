"""What a command would run, what of that is there, and what the rest would take. No torch here."""

import json
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dylora.files import ADAPTER
from dylora.results.cost import HOUR, Estimator, duration, machine, option_of
from dylora.results.deploy import FLOAT32
from dylora.results.runs import Run, load_records
from dylora.suite.config import Config
from dylora.suite.hub import why_no_model
from dylora.suite.records import signature

MEGABYTE, GIGABYTE = 10**6, 10**9


@dataclass(frozen=True)
class Planned:
    """One run of a command; hours and bytes are None where no finished run tells."""

    signature: str
    state: str  # done, running, failed, interrupted, missing
    hours: float | None  # of the whole run
    bytes: int | None  # of its folder, when it is done; null as well where hours are rough
    measured_on: str | None  # the device that the hours are of, with its threads


@dataclass(frozen=True)
class DryRun:
    """All runs of a command, and whether what they need can be had."""

    runs: list[Planned]
    unreachable: dict[str, str]  # `model NAME` or `data of TASK` -> why it cannot be had
    free_bytes: int  # where the results go
    problems: list[str]  # records that could not be used

    def text(self) -> str:
        """A line for each run, then what is left to do."""
        lines = [f"{'state':<12}{'hours':>7}{'MB':>8}  run"]
        for run in self.runs:
            hours = "?" if run.hours is None else f"{run.hours:.2f}"
            size = "?" if run.bytes is None else f"{run.bytes / MEGABYTE:.1f}"
            lines.append(f"{run.state:<12}{hours:>7}{size:>8}  {run.signature}")
        states = Counter(run.state for run in self.runs)
        counts = ", ".join(f"{n} {state}" for state, n in states.items())
        lines += ["", f"{len(self.runs)} runs: {counts}", *self._left()]
        lines += [f"cannot be reached: {what}: {why}" for what, why in self.unreachable.items()]
        if not self.unreachable:
            lines.append("models and data can be reached")
        return "\n".join([*lines, *(f"left out: {problem}" for problem in self.problems)])

    def _left(self) -> list[str]:
        left = [run for run in self.runs if run.state != "done"]
        known = [run for run in left if run.hours is not None]
        lines = []
        if known:
            seconds = HOUR * sum(run.hours or 0 for run in known)
            size = sum(run.bytes or 0 for run in known) / MEGABYTE
            devices = " and ".join(sorted({str(run.measured_on) for run in known}))
            about = f"about {duration(seconds)} on {devices}"
            lines.append(f"left: {about}, one after another, {size:.0f} MB")
        if len(known) < len(left):
            lines.append(
                f"unknown: the time of {len(left) - len(known)}, as none like them is done"
            )
        return [*lines, f"free: {self.free_bytes / GIGABYTE:.0f} GB"]

    def json(self) -> str:
        """The same for programs."""
        return json.dumps(asdict(self), indent=1)


def plan(configs: Sequence[Config]) -> DryRun:
    """The plan of at least one configuration; a run is known by its signature alone.

    Nothing is made, downloaded or trained. Each model and each task is looked for once, on this
    machine and then on the hub.
    """
    from dylora.tasks.base import why_no_data  # `datasets` takes a second

    paths = configs[0].paths
    runs, problems = load_records(Path(paths.results) / "records")
    by_name, estimator = {run.signature: run for run in runs}, Estimator(runs)
    unreachable = {
        **_missing(configs, "model", lambda c: c.model.name_or_path, why_no_model),
        **_missing(configs, "data of", lambda c: c.task.name, why_no_data),
    }
    found = {signature(config): config for config in configs}
    return DryRun(
        [_planned(name, config, by_name.get(name), estimator) for name, config in found.items()],
        unreachable,
        shutil.disk_usage(_existing(Path(paths.results))).free,
        [str(problem) for problem in problems],
    )


def show_plan(configs: Sequence[Config]) -> None:
    """Print the plan as `dry_run` says; leave with 1 if a model or data cannot be had."""
    found = plan(configs)
    print(found.json() if configs[0].dry_run == "json" else found.text())
    if found.unreachable:
        sys.exit(1)


def _missing(
    configs: Iterable[Config],
    what: str,
    name: Callable[[Config], str],
    reason: Callable[[Config], str | None],
) -> dict[str, str]:
    """What cannot be had and why, looked for once for each name."""
    reasons = {n: reason(config) for n, config in {name(c): c for c in configs}.items()}
    return {f"{what} {n}": why for n, why in reasons.items() if why}


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _planned(name: str, config: Config, own: Run | None, estimator: Estimator) -> Planned:
    if own is not None and own.done:
        seconds, on = sum(own.record["times"].values()), machine(own)
        return Planned(name, "done", seconds / HOUR, round(_bytes(own, config)), on)
    state = own.record["status"] if own is not None else "missing"
    found = estimator(option_of(config))
    if found is None:
        return Planned(name, state, None, None, None)
    size = round(statistics.median(_bytes(run, config) for run in found.runs))
    hours = found.seconds / HOUR
    return Planned(name, state, hours, None if found.rough else size, found.machine)


def _bytes(run: Run, config: Config) -> float:
    """The run's folder, its adapter in proportion to the highest rank."""
    files = [p for p in run.folder.rglob("*") if p.is_file() and p.name != ADAPTER]
    counts = run.record["parameters"]
    low_rank = counts.get("low_rank", 0)
    scaled = low_rank * config.method.max_rank / run.max_rank if run.max_rank else 0
    trained = counts.get("trained", 0) - low_rank + scaled
    return sum(p.stat().st_size for p in files) + FLOAT32 * trained
