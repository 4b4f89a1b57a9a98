"""results/REPORT.md: what the records say, like a short paper. Every number comes from a record.

  dylora report-md                        from results/records/
  dylora report-md paths.results=DIR      from the records of another folder

Reads records only: no torch, no network, never training. Exit status 1 if something had to be left
out, which is listed by file with what to do.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.loading import Folders, load_material
from dylora.results.summary import write_summary
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class Options:
    paths: Folders = field(default_factory=Folders)


def main() -> int:
    """0 if every record and file could be used, else 1. Raises UserError for a wrong option."""
    folders = options(Options, __doc__).paths
    path = Path(folders.results) / "REPORT.md"
    problems = write_summary(path, load_material(folders))
    print(path)
    return left_out(problems)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
