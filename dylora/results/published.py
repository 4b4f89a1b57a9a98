"""Published numbers, from results/reference/: as printed, each with its source. No torch here."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from omegaconf import MISSING

from dylora.errors import UserError
from dylora.results.runs import Problem
from dylora.results.typed_yaml import read_yaml, typed

# As printed: 85.36±0.26, .39, 87.03(8) with its rank, 0.09M parameters, 7x the time, 4 to 7.
NUMBER = re.compile(r"(-?(?:\d+\.?\d*|\.\d+))(?:±(\d+\.?\d*|\.\d+)|\((\d+)\)|M|x| to \d+)?")


class Confidence(StrEnum):
    """Of a published value: read in its source, or told by someone who has read it."""

    primary = "primary"
    medium = "medium"


@dataclass
class Published:
    """Numbers of one row of a source, as printed there ("87.5±.3"), never measured here."""

    models: list[str] = MISSING
    name: str = MISSING
    rank: str = ""  # of a rank; "best" or "mean" over ranks; "" for a method without ranks
    source: str = MISSING
    confidence: Confidence = MISSING
    values: dict[str, str] = field(default_factory=dict)  # column -> text
    notes: dict[str, str] = field(default_factory=dict)  # column -> what is odd about the value
    remarks: list[str] = field(default_factory=list)  # on all that the source says

    def number(self, column: str) -> float | None:
        """The value of a column without its spread; None where there is none."""
        found = NUMBER.fullmatch(self.values.get(column, ""))
        return None if found is None else float(found[1])


@dataclass
class _Line:
    name: str = MISSING
    rank: str = ""
    values: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class _Source:
    source: str = MISSING
    confidence: Confidence = MISSING
    models: list[str] = MISSING
    settings: bool = False  # rows are options, whose values may be words
    notes: list[str] = field(default_factory=list)
    rows: list[_Line] = field(default_factory=list)


@dataclass
class _File:
    sources: list[_Source] = field(default_factory=list)


def load_published(folder: Path) -> tuple[dict[str, list[Published]], list[Problem]]:
    """Published numbers by the name of their file; a file with a fault is left out and reported."""
    found: dict[str, list[Published]] = {}
    problems = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = read_yaml(path)
            if not isinstance(content, list):
                raise UserError("must be a list of sources (source, confidence, models, rows)")
            sources = typed(_File, {"sources": content}).sources
            found[path.stem] = [row for source in sources for row in _rows(source)]
        except UserError as error:
            problems.append(Problem(path, str(error)))
    return found, problems


def _rows(source: _Source) -> list[Published]:
    rows = []
    for line in source.rows:
        for column, text in line.values.items():
            if not source.settings and not NUMBER.fullmatch(text):
                raise UserError(
                    f"{line.name}, rank {line.rank or '-'}, {column}: {text!r} is not a number; "
                    "write it as printed, such as 85.36±0.26, or leave the column out"
                )
        rest = (source.source, source.confidence, line.values, line.notes, source.notes)
        rows.append(Published(source.models, line.name, line.rank, *rest))
    return rows
