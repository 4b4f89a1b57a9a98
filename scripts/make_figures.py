"""Figures from the run records, as PNG and PDF: scores, time and singular values by rank.

  dylora figures                     into results/figures/
  dylora figures paths.results=DIR   records and figures of another folder

Reads records and adapters only: no torch, no network, never training. Exit status 1 if something
had to be left out, which is listed by file with what to do.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.figures import write_figures
from dylora.results.runs import load_records
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class PathOptions:
    results: str = "results"  # has records/, gets figures/


@dataclass
class Options:
    paths: PathOptions = field(default_factory=PathOptions)


def main() -> int:
    """0 if every record and adapter could be used, else 1. Raises UserError for a wrong option."""
    results = Path(options(Options, __doc__).paths.results)
    runs, problems = load_records(results / "records")
    drawn = write_figures(runs, results / "figures")
    for path in drawn.files:
        print(path)
    for line in drawn.not_drawn:
        print(f"not drawn: {line}")
    if not drawn.files:
        print(f"no finished run in {results / 'records'}, so no figures")
    return left_out([*problems, *drawn.problems])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
