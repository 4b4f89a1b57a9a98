"""Figures from the run records, as PNG and PDF: scores, time, singular values by rank, and claims.

  dylora figures                     into results/figures/
  dylora figures paths.results=DIR   records and figures of another folder

Reads records and adapters only: no torch, no network, never training. Exit status 1 if something
had to be left out, which is listed by file with what to do.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.claim_figures import write_claim_figures
from dylora.results.figures import write_figures
from dylora.results.loading import Folders, load_material
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class Options:
    paths: Folders = field(default_factory=Folders)


def main() -> int:
    """0 if every record and adapter could be used, else 1. Raises UserError for a wrong option."""
    paths = options(Options, __doc__).paths
    results, material = Path(paths.results), load_material(paths)
    drawn = write_figures(material.runs, results / "figures")
    files, without = write_claim_figures(material, results / "figures")
    for path in [*drawn.files, *files]:
        print(path)
    for line in [*drawn.not_drawn, *without]:
        print(f"not drawn: {line}")
    if not drawn.files:
        print(f"no finished run in {results / 'records'}, so no figures")
    return left_out([*material.problems, *drawn.problems])


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
