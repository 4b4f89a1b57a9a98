"""Scores by arm and rank."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dylora.metrics import metric_named
from dylora.results.layout import Arm, Published, ScoreLayout
from dylora.results.runs import Run
from dylora.results.stats import best_rank, summarize
from dylora.results.tables.cells import (
    DASH,
    Cell,
    Row,
    Table,
    mark_best,
    plain_cell,
    published_row,
    score_cell,
    seeds_cell,
)
from dylora.results.tables.paired import PairedTest, Values, paired_test
from dylora.results.tables.ranges import range_tables
from dylora.results.tables.selection import (
    Column,
    Part,
    columns_of,
    parts_of,
    select,
    settings_notes,
    values_of,
)

MARKS = "†‡§¶"  # one for each arm that others are tested against


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
        columns = columns_of(layout.columns, part)
        values, notes = {}, []
        for task in dict.fromkeys(column.task for column in columns):
            chosen = {arm.name: select(arm, part.runs.get(task, [])) for arm in layout.arms}
            for column in (column for column in columns if column.task == task):
                for arm, selection in chosen.items():
                    values[arm, column.key] = values_of(selection, column)
            notes += settings_notes(task, chosen)
        return cls(layout, part, columns, values, notes)

    @property
    def most_seeds(self) -> int:
        counts = [len(by_seed) for values in self.values.values() for by_seed in values.values()]
        return max(counts, default=0)

    def has(self, arm: Arm) -> bool:
        """Whether any run of the arm has a value here."""
        return any(self.values[arm.name, column.key] for column in self.columns)

    @cached_property
    def tests(self) -> list[PairedTest]:
        """Every arm against those that it names, at every rank and column that both have."""
        found = []
        for arm in self.layout.arms:
            for other in arm.against:
                for column in self.columns:
                    ours, theirs = self.values[arm.name, column.key], self.values[other, column.key]
                    for rank in sorted(set(ours) & set(theirs)):
                        result = paired_test(column, rank, ours, theirs)
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


def score_tables(
    layout: ScoreLayout, runs: Sequence[Run], published: Sequence[Published]
) -> tuple[list[Table], list[PairedTest]]:
    """For each model its scores, by each convention, and the summary over ranks; and the tests."""
    tables, tests = [], []
    for part in parts_of(runs, layout.model, layout.architecture):
        findings = Findings.of(layout, part)
        if part.runs and not any(findings.values.values()):
            continue  # runs of this model, but none of this experiment's
        known = [row for row in published if part.model in row.models and not part.limits]
        centers = layout.centers if findings.most_seeds > 2 else layout.centers[:1]
        tables += [_score_table(findings, center, known) for center in centers]
        tables += range_tables(layout, part, findings.columns, findings.values)
        tests += findings.tests
    return tables, tests


def _score_table(findings: Findings, center: str, published: Sequence[Published]) -> Table:
    layout, columns = findings.layout, findings.columns
    single = [row for arm in layout.arms for row in _arm_rows(findings, arm, center)]
    ranged = [arm for arm in layout.arms if len(arm.ranks) > 1 and findings.has(arm)]
    best = [_best_row(findings, arm, center) for arm in ranged]
    lower = [column.about.lower_is_better for column in columns] + [False] * layout.average
    digits = [column.about.unit.digits for column in columns] + [1] * layout.average
    rows = mark_best(single, lower, digits)
    rows += mark_best(best, lower, digits) if layout.best else []
    keys = [column.key for column in columns] + ["average"] * layout.average
    rows += [
        replace(row, cells=[*row.cells, Cell()])
        for p in published
        if set(p.values) & set(keys)
        for row in [published_row(p, keys)]
    ]
    headings = [column.heading for column in columns] + ["Average"] * layout.average
    return Table(
        title=f"{layout.title} ({findings.part.name}): {center} over seeds",
        model=findings.part.model,
        header=["Method", "Rank", *headings, "Seeds"],
        rows=rows,
        notes=[*_convention_notes(findings, center), *findings.notes],
    )


def _arm_rows(findings: Findings, arm: Arm, center: str) -> list[Row]:
    """A row for each rank; one row of dashes for an arm without any run."""
    columns = findings.columns
    if not findings.has(arm):
        span = f"{min(arm.ranks)}-{max(arm.ranks)}" if arm.ranks else ""
        return [_finish(arm.name, span, [Cell() for _ in columns], findings.layout)]
    rows = []
    for rank in arm.ranks or [0]:
        cells = [_cell(findings, arm, column, rank, center) for column in columns]
        rows.append(_finish(arm.name, str(rank or ""), cells, findings.layout))
    return rows


def _finish(name: str, detail: str, cells: list[Cell], layout: ScoreLayout) -> Row:
    """Add the average and the number of seeds."""
    average = [_average(cells)] if layout.average else []
    return Row(name, detail, [*cells, *average, seeds_cell(cells)])


def _average(cells: Sequence[Cell]) -> Cell:
    """The mean of a row, as the papers have it; missing if any value is."""
    values = [cell.value for cell in cells if cell.value is not None]
    if not values or len(values) < len(cells):
        return Cell()
    return plain_cell(sum(values) / len(values), 1, tuple(r for cell in cells for r in cell.runs))


def _cell(findings: Findings, arm: Arm, column: Column, rank: int, center: str) -> Cell:
    by_seed = findings.values[arm.name, column.key].get(rank)
    if not by_seed:
        return Cell()
    runs, values = zip(*by_seed.values(), strict=True)
    cell = score_cell(summarize(values), center, column.about.unit.digits, runs)
    return replace(cell, marks=findings.marks_at.get((arm.name, column.key, rank), ""))


def _best_row(findings: Findings, arm: Arm, center: str) -> Row:
    """Each column's best rank, if all of the arm's ranks are there."""
    cells = []
    for column in findings.columns:
        by_rank = {rank: _cell(findings, arm, column, rank, center) for rank in arm.ranks}
        curve = {rank: cell.value for rank, cell in by_rank.items() if cell.value is not None}
        if len(curve) < len(by_rank):
            cells.append(Cell())
            continue
        rank = best_rank(curve, column.about.lower_is_better)
        cells.append(replace(by_rank[rank], text=f"{by_rank[rank].text} ({rank})", marks=""))
    return _finish(arm.name, "best", cells, findings.layout)


def _convention_notes(findings: Findings, center: str) -> list[str]:
    layout = findings.layout
    notes = [*layout.notes]
    if not any(column.key in layout.columns for column in findings.columns):
        notes = [
            f"None of this experiment's own tasks was run with {findings.part.model}; the columns "
            "are the tasks that were."
        ]
    notes.append(
        f"Values measured here: {center} over seeds ± standard deviation (n - 1); the last column "
        f"is the number of seeds, {DASH} is a missing value. Bold: best of its column."
    )
    if layout.average:
        notes.append("Average: mean of the columns, where all are there.")
    if layout.best:
        notes.append(
            "Rows named best: each column at its own best rank (in brackets), which is chosen on "
            "the data that it is scored on."
        )
    for against, mark in findings.marks.items():
        if any(test.against == against and test.comparison for test in findings.tests):
            notes.append(
                f"{mark} differs from {against} at the same rank: paired bootstrap and approximate "
                "randomisation over the examples both give p < 0.05, not corrected for the number "
                "of comparisons."
            )
    untested = sum(test.comparison is None for test in findings.tests)
    if untested:
        notes.append(
            f"{untested} paired tests lack predictions, or predictions that fit the labels."
        )
    notes += _metric_notes(findings)
    if not findings.part.runs:
        notes.append(f"There are no finished runs with {findings.part.model} yet.")
    return notes


def _metric_notes(findings: Findings) -> list[str]:
    """What computed the metrics of texts; two signatures of one would not be comparable."""
    found: dict[str, set[str]] = {}
    for (_, key), values in findings.values.items():
        task, _, column = key.partition(".")
        metric = metric_named(column)
        for by_seed in values.values() if metric.sums is None else ():
            for run, _ in by_seed.values():
                signature = run.record.get("metrics", {}).get(metric.name)
                if signature is not None:
                    found.setdefault(f"{task} {metric.name}", set()).add(signature)
    return [f"{name}: {' and '.join(sorted(texts))}" for name, texts in sorted(found.items())]
