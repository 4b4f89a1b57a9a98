"""All that tables and reports are made of, loaded alike by every command that makes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dylora.errors import UserError
from dylora.results.layout import Experiment, known_tasks, load_experiments
from dylora.results.published import Published, load_published
from dylora.results.runs import Problem, Run, load_records


@dataclass
class Folders:
    """Where the material is, as options of a command line."""

    results: str = "results"  # has records/; what is made goes here too
    experiments: str = "experiments"  # layouts of the tables
    reference: str = "results/reference"  # published numbers


@dataclass(frozen=True)
class Material:
    """Runs, the tables to make of them, published numbers, and what could not be used."""

    runs: list[Run]
    experiments: Sequence[Experiment]
    published: Mapping[str, Sequence[Published]]
    problems: list[Problem]


def load_material(folders: Folders, only: str | None = None) -> Material:
    """Read everything once; `only` names the one experiment that is wanted.

    Raises UserError for a folder or an experiment that is not there.
    """
    for folder in (folders.experiments, folders.reference):
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; run this in the project's folder")
    runs, problems = load_records(Path(folders.results) / "records")
    known = known_tasks() | {run.task for run in runs}
    experiments, more = load_experiments(Path(folders.experiments), known, only)
    published, faults = load_published(Path(folders.reference))
    return Material(runs, experiments, published, [*problems, *more, *faults])
