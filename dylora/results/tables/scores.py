"""Scores as the paper lays them out: a block for each rank, published rows beside ours."""

from collections.abc import Sequence
from dataclasses import replace

from dylora.metrics import metric_named
from dylora.results.layout import Arm, ScoreLayout
from dylora.results.published import Published
from dylora.results.runs import Run
from dylora.results.stats import summarize
from dylora.results.tables.beside import parameters_cell, seconds_cell
from dylora.results.tables.cells import (
    DASH,
    DIGITS,
    Cell,
    Row,
    Table,
    mark_best,
    number,
    plain_cell,
    published_row,
    score_cell,
    seeds_cell,
)
from dylora.results.tables.findings import Findings, protocol_note
from dylora.results.tables.gaps import gap_tables
from dylora.results.tables.noise import noise_tables
from dylora.results.tables.paired import PairedTest
from dylora.results.tables.ranges import range_tables
from dylora.results.tables.selection import Column, Values, parts_of

MEAN, BEST = "mean", "best"  # details of rows that stand for several ranks
CONSTANT = "At least one run predicts the same for every example"


def score_tables(
    layout: ScoreLayout, runs: Sequence[Run], published: Sequence[Published]
) -> tuple[list[Table], list[PairedTest]]:
    """For each model and protocol its scores and the summary over ranks; and the tests."""
    tables, tests = [], []
    for part in parts_of(runs, layout):
        findings = Findings.of(layout, part)
        if part.runs and not any(findings.values.values()):
            continue  # runs of this model, but none of this experiment's
        make = _rank_columns if layout.ranks_as_columns else _rank_blocks
        header, rows = make(findings, part.published(layout, published))
        tables.append(
            Table(
                title=f"{layout.title} ({part.name}): {findings.center} over seeds",
                model=part.model,
                header=header,
                rows=rows,
                notes=[*_convention_notes(findings), *findings.notes],
            )
        )
        tables += gap_tables(findings)
        tables += noise_tables(findings)
        tables += range_tables(findings)
        tests += findings.tests
    return tables, tests


def _rank_blocks(findings: Findings, published: Sequence[Published]) -> tuple[list[str], list[Row]]:
    """A row for each rank and arm; under it what else was published on any of the columns."""
    layout, columns = findings.layout, findings.columns
    lead = ["parameters"] * layout.parameters + ["seconds"] * layout.seconds
    average = ["average"] * layout.average
    keys = [*lead, *(column.key for column in columns), *average]
    left = [row for row in published if set(row.values) & set(keys)]
    rows: list[Row] = []
    for detail in dict.fromkeys(detail for arm in layout.arms for detail in _details(arm, layout)):
        ours = []
        for arm in layout.arms:
            if detail in _details(arm, layout):
                beside = [p for p in left if (p.name, p.rank) == (arm.name, detail)]
                left = [p for p in left if p not in beside]
                ours += [_published(p, keys, findings, detail) for p in beside]
                ours += [_measured(findings, arm, detail)] if findings.part.runs else []
        rows += _marked(ours, len(lead), findings)
    rows += [_published(p, keys, findings, "other") for p in left]
    headings = {"parameters": "Parameters", "seconds": "Training, s", "average": "Average"}
    names = [c.heading for c in columns]
    lead_names, last = [headings[key] for key in lead], [headings[key] for key in average]
    return ["Method", "Rank", *lead_names, *names, *last, "Seeds"], rows


def _details(arm: Arm, layout: ScoreLayout) -> list[str]:
    """The rows of an arm: its ranks, what is over several of them, or the one without a rank."""
    best = [BEST] * (layout.best and len(arm.ranks) > 1)
    return [*map(str, arm.ranks), *[MEAN] * bool(arm.mean_of), *best] or [""]


def _published(row: Published, keys: Sequence[str], findings: Findings, block: str) -> Row:
    made = published_row(row, keys, findings.part.model, block)
    return replace(made, cells=[*made.cells, Cell()])


def _measured(findings: Findings, arm: Arm, detail: str) -> Row:
    layout = findings.layout
    scores = [cell_at(findings, arm, column, detail) for column in findings.columns]
    lead = []
    if layout.parameters:
        over_ranks = detail in (MEAN, BEST)
        lead.append(Cell() if over_ranks else parameters_cell(scores, int(detail or 0)))
    lead += [seconds_cell(scores, findings.center)] if layout.seconds else []
    average = [_average(scores)] if layout.average else []
    return Row(arm.name, detail, [*lead, *scores, *average, seeds_cell(scores)], block=detail)


def _marked(rows: Sequence[Row], skip: int, findings: Findings) -> list[Row]:
    """The best of each column among the measured rows of a block."""
    lower = [column.about.lower_is_better for column in findings.columns]
    return mark_best(rows, skip, [*lower, *[False] * findings.layout.average])


def _rank_columns(
    findings: Findings, published: Sequence[Published]
) -> tuple[list[str], list[Row]]:
    """A block for each task and metric, with a column for each rank."""
    layout = findings.layout
    ranks = list(dict.fromkeys(str(rank) for arm in layout.arms for rank in arm.ranks))
    rows = []
    for column in findings.columns:
        for arm in layout.arms:
            known = [p for p in published if p.name == arm.name and column.key in p.values]
            if known:
                values = {p.rank: p.values[column.key] for p in known}
                notes = {p.rank: p.notes.get(column.key, "") for p in known}
                line = replace(known[0], rank=column.heading, values=values, notes=notes)
                rows.append(_published(line, ranks, findings, column.heading))
            if findings.part.runs:
                cells = [cell_at(findings, arm, column, rank) for rank in ranks]
                ours = [*cells, seeds_cell(cells)]
                rows.append(Row(arm.name, column.heading, ours, block=column.heading))
    return ["Method", "Task", *ranks, "Seeds"], rows


def cell_at(findings: Findings, arm: Arm, column: Column, detail: str) -> Cell:
    """The value of an arm in a row: at a rank, over several of them, or without ranks."""
    values = findings.values[arm.name, column.key]
    if detail == BEST:
        return _best(arm, column, values)
    by_seed = mean_over(values, arm.mean_of) if detail == MEAN else values.get(int(detail or 0), {})
    if not by_seed:
        return Cell()
    runs, numbers = zip(*by_seed.values(), strict=True)
    cell = score_cell(summarize(numbers), findings.center, DIGITS, runs)
    if detail == MEAN:
        return cell
    rank = int(detail or 0)
    constant = (run.constant(arm.scored_rank(rank, run.max_rank), arm.truncation) for run in runs)
    note = CONSTANT if any(constant) else ""
    return replace(cell, marks=findings.marks_at.get((arm.name, column.key, rank), ""), note=note)


def mean_over(values: Values, ranks: Sequence[int]) -> dict[int, tuple[Run, float]]:
    """seed -> its run and its mean over the ranks, for seeds that have all of them."""
    seeds = set.intersection(*(set(values.get(rank, {})) for rank in ranks))
    return {
        seed: (values[ranks[0]][seed][0], sum(values[r][seed][1] for r in ranks) / len(ranks))
        for seed in sorted(seeds)
    }


def _best(arm: Arm, column: Column, values: Values) -> Cell:
    """The best value over ranks and seeds with its rank, if all of the arm's ranks are there."""
    if any(rank not in values for rank in arm.ranks):
        return Cell()
    sign = -1 if column.about.lower_is_better else 1
    found = [(value, rank, run) for rank in arm.ranks for run, value in values[rank].values()]
    value, rank, run = max(found, key=lambda each: sign * each[0])
    return Cell(f"{number(value, DIGITS)} ({rank})", value, runs=(run,))


def _average(cells: Sequence[Cell]) -> Cell:
    """The mean of a row, as the papers have it; missing if any value is."""
    values = [cell.value for cell in cells if cell.value is not None]
    if not values or len(values) < len(cells):
        return Cell()
    return plain_cell(
        sum(values) / len(values), DIGITS, tuple(r for cell in cells for r in cell.runs)
    )


def _convention_notes(findings: Findings) -> list[str]:
    layout, center = findings.layout, findings.center
    notes = [*layout.notes, protocol_note(findings.part)]
    if not findings.part.runs:
        return [*notes, f"No run of this table is finished yet ({findings.part.name})."]
    if not any(column.key in layout.columns for column in findings.columns):
        notes = ["None of this experiment's own tasks was run; the columns are toy tasks."]
    notes.append(
        f"Values measured here: {center} over seeds ± standard deviation (n - 1); the last column "
        f"is the number of seeds, {DASH} is what was not run. Bold: the best of ours in its block."
    )
    if layout.average:
        notes.append("Average: mean of the columns, where all are there.")
    if layout.best:
        notes.append(
            "Rows named best: the best value over ranks and seeds (its rank in brackets), which is "
            "chosen on the data that it is scored on."
        )
    for against, mark in findings.marks.items():
        if any(test.against == against and test.comparison for test in findings.tests):
            notes.append(
                f"{mark} differs from {against} at the same rank: paired bootstrap and approximate "
                "randomization over the examples both give p < 0.05, not corrected for the number "
                "of comparisons. Tests compare the same examples, ± is between seeds: a mark can "
                "stand beside values whose ± overlap."
            )
    untested = sum(test.comparison is None for test in findings.tests)
    if untested:
        notes.append(
            f"{untested} paired tests lack predictions, or predictions that fit the labels."
        )
    return notes + _metric_notes(findings)


def _metric_notes(findings: Findings) -> list[str]:
    """What computed the metrics of texts; two signatures of one would not be comparable."""
    found: dict[str, set[str]] = {}
    for (_, key), values in findings.values.items():
        task, _, column = key.partition(".")
        metric = metric_named(column)
        for by_seed in values.values() if metric.compute is None else ():
            for run, _ in by_seed.values():
                signature = run.record.get("metrics", {}).get(metric.name)
                if signature is not None:
                    found.setdefault(f"{task} {metric.name}", set()).add(signature)
    return [f"{name}: {' and '.join(sorted(texts))}" for name, texts in sorted(found.items())]
