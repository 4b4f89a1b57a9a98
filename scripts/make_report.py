"""One HTML page with all results, to be opened without a network: results/report.html.

  dylora report                         from results/records/
  dylora report paths.results=DIR       records and page of another folder

Reads records only: no torch, no network, never training. Exit status 1 if something had to be left
out, which is listed by file with what to do, here and on the page.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.errors import UserError
from dylora.results.layout import known_tasks, load_experiments
from dylora.results.published import load_published
from dylora.results.report import write_report
from dylora.results.runs import load_records
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class PathOptions:
    results: str = "results"  # has records/, gets report.html
    experiments: str = "experiments"
    reference: str = "results/reference"  # published numbers


@dataclass
class Options:
    paths: PathOptions = field(default_factory=PathOptions)


def main() -> int:
    """0 if every record and file could be used, else 1. Raises UserError for a wrong option."""
    paths = options(Options, __doc__).paths
    for folder in (paths.experiments, paths.reference):
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; run this in the project's folder")
    runs, problems = load_records(Path(paths.results) / "records")
    tasks = known_tasks() | {run.task for run in runs}
    experiments, more = load_experiments(Path(paths.experiments), tasks)
    published, faults = load_published(Path(paths.reference))
    page = Path(paths.results) / "report.html"
    problems = write_report(page, runs, experiments, published, [*problems, *more, *faults])
    print(page)
    return left_out(problems)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
