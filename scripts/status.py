"""How far the experiments are: done, running, failed, interrupted and missing runs of each grid.

  dylora status                           all experiments
  dylora status experiment=table2         one of them
  dylora status paths.results=DIR         records of another folder

Says why runs failed, and estimates the hours left from the times of the runs that are done. Exit
status 1 if a record could not be used.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.layout import known_tasks, load_experiments
from dylora.results.runs import Run, load_records
from dylora.results.status import PlannedRuns, planned_runs
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class PathOptions:
    results: str = "results"
    experiments: str = "experiments"


@dataclass
class Options:
    experiment: str | None = None  # one of experiments/; null: all
    paths: PathOptions = field(default_factory=PathOptions)


def main() -> int:
    """0 if every record could be used, else 1. Raises UserError for a wrong option."""
    chosen = options(Options, __doc__)
    runs, problems = load_records(Path(chosen.paths.results) / "records")
    known = known_tasks() | {run.task for run in runs}
    folder, only = Path(chosen.paths.experiments), chosen.experiment
    experiments, more = load_experiments(folder, known, only)
    for experiment in experiments:
        for progress in planned_runs(experiment, runs):
            counts = ", ".join(f"{n} {status}" for status, n in progress.counts.most_common())
            print(f"{experiment.name}, {progress.model}: {counts}{hours_left(progress, runs)}")
    for run in runs:
        if run.record["status"] == "failed":
            reason = str(run.record.get("error", "")).strip().splitlines()[-1:]
            print(f"failed: {run.folder}: {''.join(reason)}")
    return left_out([*problems, *more])


def hours_left(progress: PlannedRuns, runs: Sequence[Run]) -> str:
    """From the median finished run of each task with this model; unknown of a task without any."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        if run.done and run.model == progress.model:
            seconds.setdefault(run.task, []).append(sum(run.record["times"].values()))
    left = [chosen["task"] for chosen, status in progress.planned if status != "done"]
    known = [task for task in left if task in seconds]
    if not known:
        return "; hours left unknown" if left else ""
    hours = sum(statistics.median(seconds[task]) for task in known) / 3600
    unknown = sorted(set(left) - set(known))
    more = f", and unknown for {', '.join(unknown)}" if unknown else ""
    return f"; about {hours:.1f} hours left, one after another{more}"


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
