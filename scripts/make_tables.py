"""Tables of every experiment from the run records, as Markdown, LaTeX and CSV.

  dylora tables                         into results/tables/
  dylora tables experiment=table2  one of them
  dylora tables paths.results=DIR       records and tables of another folder

Reads records only: no torch, no network, never training. Exit status 1 if something had to be left
out, which is listed by file with what to do.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.errors import UserError
from dylora.results.layout import known_tasks, load_experiments
from dylora.results.published import load_published
from dylora.results.runs import load_records
from dylora.results.tables import build_tables, write_tables
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class PathOptions:
    results: str = "results"  # has records/, gets tables/
    experiments: str = "experiments"
    reference: str = "results/reference"  # published numbers


@dataclass
class Options:
    experiment: str | None = None  # one of experiments/; null: all
    paths: PathOptions = field(default_factory=PathOptions)


def main() -> int:
    """0 if every record and file could be used, else 1. Raises UserError for a wrong option."""
    chosen = options(Options, __doc__)
    results = Path(chosen.paths.results)
    for needed in (chosen.paths.experiments, chosen.paths.reference):
        if not Path(needed).is_dir():
            raise UserError(f"{needed}: no such folder; run this in the project's folder")
    runs, problems = load_records(results / "records")
    tasks = known_tasks() | {run.task for run in runs}
    folder, only = Path(chosen.paths.experiments), chosen.experiment
    experiments, more = load_experiments(folder, tasks, only)
    published, faults = load_published(Path(chosen.paths.reference))
    problems += [*more, *faults]
    for experiment in experiments:
        made, missing = build_tables(experiment, runs, published)
        problems += missing
        for path in write_tables(made, results / "tables"):
            print(path)
    done = sum(run.done for run in runs)
    print(f"{done} finished runs, {len(runs) - done} others, in {results / 'records'}")
    return left_out(problems)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
