"""How far the experiments are: done, running, failed, interrupted and missing runs of each grid.

  dylora status                           all experiments
  dylora status experiment=table2         one of them
  dylora status paths.results=DIR         records of another folder

Says why runs failed, and estimates the time left from the rows, epochs and ranks of the runs that
are missing, at the pace of those that are done. Exit status 1 if a record could not be used.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.cost import Estimator
from dylora.results.layout import known_tasks, load_experiments
from dylora.results.runs import load_records
from dylora.results.status import planned_runs, time_left
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
    estimator = Estimator(runs)
    experiments, more = load_experiments(folder, known, only)
    for experiment in experiments:
        for progress in planned_runs(experiment, runs):
            counts = ", ".join(f"{n} {status}" for status, n in progress.counts.most_common())
            print(f"{experiment.name}, {progress.model}: {counts}{time_left(progress, estimator)}")
    for run in runs:
        if run.record["status"] == "failed":
            reason = str(run.record.get("error", "")).strip().splitlines()[-1:]
            print(f"failed: {run.folder}: {''.join(reason)}")
    return left_out([*problems, *more])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
