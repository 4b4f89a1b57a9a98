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

from dylora.results.loading import Folders, load_material
from dylora.results.tables import build_tables, write_tables
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class Options:
    experiment: str | None = None  # one of experiments/; null: all
    paths: Folders = field(default_factory=Folders)


def main() -> int:
    """0 if every record and file could be used, else 1. Raises UserError for a wrong option."""
    chosen = options(Options, __doc__)
    results, material = Path(chosen.paths.results), load_material(chosen.paths, chosen.experiment)
    problems = list(material.problems)
    for experiment in material.experiments:
        made, missing = build_tables(experiment, material.runs, material.published)
        problems += missing
        for path in write_tables(made, results / "tables"):
            print(path)
    done = sum(run.done for run in material.runs)
    print(f"{done} finished runs, {len(material.runs) - done} others, in {results / 'records'}")
    return left_out(problems)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
