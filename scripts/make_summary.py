"""results/REPORT.md: what the records say, like a short paper. Every number comes from a record.

  dylora report-md                        from results/records/
  dylora report-md readme=README.md       the README's sentences and figure too
  dylora report-md paths.results=DIR      from the records of another folder

Reads records only: no torch, no network, never training. Exit status 1 if something had to be left
out, which is listed by file with what to do.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from dylora.results.headline import write_headline
from dylora.results.loading import Folders, load_material
from dylora.results.standing import any_rank_standing, texts_standing
from dylora.results.summary import write_summary
from dylora.suite.cli import left_out, options, plain_errors


@dataclass
class Options:
    readme: str | None = None  # fill this file's block of results too, and draw its figure
    paths: Folders = field(default_factory=Folders)


def main() -> int:
    """0 if every record and file could be used, else 1. Raises UserError for a wrong option."""
    chosen = options(Options, __doc__)
    path, material = Path(chosen.paths.results) / "REPORT.md", load_material(chosen.paths)
    problems = write_summary(path, material)
    print(path)
    if chosen.readme is not None:
        for written in write_headline(
            Path(chosen.readme), any_rank_standing(material), texts_standing(material)
        ):
            print(written)
    return left_out(problems)


if __name__ == "__main__":
    with plain_errors():
        sys.exit(main())
