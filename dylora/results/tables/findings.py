"""All values of an experiment with one model, by arm and column, and the tests between arms."""

from dataclasses import dataclass
from functools import cached_property

from dylora.results.layout import RunsLayout, ScoreLayout
from dylora.results.stats import Center
from dylora.results.tables.paired import PairedTest, paired_test
from dylora.results.tables.selection import (
    Column,
    Part,
    Values,
    columns_of,
    select,
    settings_notes,
    values_of,
)
from dylora.suite.config import Architecture, Protocol

MARKS = "†‡§¶"  # one for each arm that others are tested against


def center_of(part: Part, layout: RunsLayout) -> Center:
    """What stands for the seeds: the mean, but the median of GLUE's released protocol."""
    median = part.protocol == Protocol.released and layout.architecture == Architecture.encoder
    return Center.median if median else Center.mean


def protocol_note(part: Part) -> str:
    """What a run's protocol means, for the notes of a table."""
    means = {
        Protocol.paper: "one setting for all tasks of a kind, the last epoch",
        Protocol.released: "a setting for each task, the best epoch on the data that is scored",
    }
    return f"protocol={part.protocol}: {means[part.protocol]}."


@dataclass(frozen=True)
class Findings:
    """All values of one part, by arm and column."""

    layout: ScoreLayout
    part: Part
    columns: list[Column]
    values: dict[tuple[str, str], Values]  # arm, column -> rank -> seed -> run and score
    notes: list[str]

    @classmethod
    def of(cls, layout: ScoreLayout, part: Part) -> "Findings":
        columns = columns_of(layout, part)
        values, notes = {}, []
        for task in dict.fromkeys(column.task for column in columns):
            chosen = {arm.name: select(arm, part.runs.get(task, [])) for arm in layout.arms}
            for column in (column for column in columns if column.task == task):
                for arm in layout.arms:
                    values[arm.name, column.key] = values_of(arm, chosen[arm.name], column)
            notes += settings_notes(task, chosen)
        return cls(layout, part, columns, values, notes)

    @property
    def center(self) -> Center:
        return center_of(self.part, self.layout)

    @cached_property
    def tests(self) -> list[PairedTest]:
        """Every arm against those that it names, at every rank and column that both have."""
        found = []
        arms = {arm.name: arm for arm in self.layout.arms}
        for arm in self.layout.arms:
            for other in arm.against:
                cuts = arm.truncation, arms[other].truncation
                for column in self.columns:
                    ours, theirs = self.values[arm.name, column.key], self.values[other, column.key]
                    for rank in [r for r in arm.ranks or [0] if r in ours and r in theirs]:
                        result = paired_test(column, rank, ours, theirs, cuts)
                        place = (self.part.name, column, rank, arm.name, other)
                        found.append(PairedTest(*place, result))
        return found

    @cached_property
    def marks_at(self) -> dict[tuple[str, str, int], str]:
        """Arm, column and rank -> the marks of what it differs from."""
        found: dict[tuple[str, str, int], str] = {}
        for test in self.tests:
            if test.comparison is not None and test.comparison.significant:
                place = (test.arm, test.column.key, test.rank)
                found[place] = found.get(place, "") + self.marks.get(test.against, "")
        return found

    @cached_property
    def marks(self) -> dict[str, str]:
        """Arm that others are tested against -> its mark."""
        names = dict.fromkeys(name for arm in self.layout.arms for name in arm.against)
        return dict(zip(names, MARKS, strict=False))
