"""results/REPORT.md: what the records say, like a short paper. Every number comes from a record.

  dylora report-md                        from results/records/
  dylora report-md paths.results=DIR      from the records of another folder

Reads records only: no torch, no network, never training. Exit status 1 if something had to be left
out, which is listed by file with what to do.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.layout import known_tasks, load_experiments
from dylora.results.published import load_published
from dylora.results.runs import load_records
from dylora.results.summary import write_summary
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class PathOptions:
    results: str = "results"  # has records/, gets REPORT.md
    experiments: str = "experiments"
    reference: str = "results/reference"  # published numbers


@dataclass
class Options:
    paths: PathOptions = field(default_factory=PathOptions)


def main() -> int:
    """0 if every record and file could be used, else 1. Raises UserError for a wrong option."""
    chosen = options(Options, __doc__)
    results = Path(chosen.paths.results)
    runs, problems = load_records(results / "records")
    tasks = known_tasks() | {run.task for run in runs}
    experiments, more = load_experiments(Path(chosen.paths.experiments), tasks)
    published, faults = load_published(Path(chosen.paths.reference))
    path = results / "REPORT.md"
    missing = write_summary(path, runs, experiments, published)
    print(path)
    return left_out([*problems, *more, *faults, *missing])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
