"""One HTML page with all results, to be opened without a network: results/report.html.

  dylora report                         from results/records/
  dylora report paths.results=DIR       records and page of another folder

Reads records only: no torch, no network, never training. Exit status 1 if something had to be left
out, which is listed by file with what to do, here and on the page.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.loading import Folders, load_material
from dylora.results.report import write_report
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class Options:
    paths: Folders = field(default_factory=Folders)


def main() -> int:
    """0 if every record and file could be used, else 1. Raises UserError for a wrong option."""
    folders = options(Options, __doc__).paths
    page = Path(folders.results) / "report.html"
    problems = write_report(page, load_material(folders))
    print(page)
    return left_out(problems)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
