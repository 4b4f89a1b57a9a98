"""The search for the best rank (the paper's Table 5): one run with all ranks, or one for each."""

from collections.abc import Sequence
from dataclasses import replace

from dylora.results.layout import Arm, SearchLayout
from dylora.results.published import Published
from dylora.results.runs import Run
from dylora.results.stats import Center, best_rank, summarize
from dylora.results.tables.cells import (
    DIGITS,
    Cell,
    Row,
    Table,
    published_row,
    score_cell,
    seeds_cell,
)
from dylora.results.tables.costs import Costs
from dylora.results.tables.findings import center_of, protocol_note
from dylora.results.tables.selection import Column, Part, columns_of, parts_of, select, values_of


def search_tables(
    layout: SearchLayout, runs: Sequence[Run], published: Sequence[Published]
) -> list[Table]:
    """One table for each model and protocol, in it a block for each highest rank."""
    tables = []
    for part in parts_of(runs, layout):
        center = center_of(part, layout)
        columns = columns_of(layout, part)
        known = part.published(layout, published)
        rows = [
            row
            for max_rank in layout.max_ranks
            for row in _block(layout, part, columns, known, max_rank, center)
        ]
        if part.runs and not any(cell.runs for row in rows for cell in row.cells):
            continue
        unfinished = f"No run of this table is finished yet ({part.name})."
        tables.append(
            Table(
                title=f"{layout.title} ({part.name}): {center} over seeds",
                model=part.model,
                header=["Method", "Highest rank", "Time", *(c.heading for c in columns), "Seeds"],
                rows=rows,
                notes=[
                    *layout.notes,
                    protocol_note(part),
                    *(_conventions(center) if part.runs else [unfinished]),
                ],
            )
        )
    return tables


def _conventions(center: Center) -> list[str]:
    return [
        f"Ours: the rank with the best {center} over seeds, in brackets, chosen on the data that "
        "it is scored on; ± standard deviation (n - 1).",
        "Time: all runs of the search over the single run, both with their evaluation, for each "
        f"task and seed that has them all on one kind of device; {center} over these.",
    ]


def arms_at(layout: SearchLayout, max_rank: int) -> tuple[Arm, Arm]:
    """The arms of a highest rank: one run with every rank, and a run for each power of two."""
    match = {**layout.once.match, "method.max_rank": max_rank}
    powers = [2**n for n in range(max_rank.bit_length())]
    once = replace(layout.once, match=match, ranks=list(range(1, max_rank + 1)))
    return once, replace(layout.sweep, ranks=powers, own_rank=True)


def _block(
    layout: SearchLayout,
    part: Part,
    columns: Sequence[Column],
    published: Sequence[Published],
    max_rank: int,
    center: Center,
) -> list[Row]:
    keys, detail = ["time", *(column.key for column in columns)], str(max_rank)
    once, sweep = arms_at(layout, max_rank)
    rows = []
    for arm in (sweep, once):
        for row in published:
            if (row.name, row.rank) == (arm.name, detail):
                made = published_row(row, keys, part.model, detail)
                rows.append(replace(made, cells=[*made.cells, Cell()]))
        if part.runs:
            cells = [_best(arm, part, column, center) for column in columns]
            time = _multiple(once, sweep, part, columns, center)
            if arm is once:
                time = Cell("1x") if time.runs else Cell()
            rows.append(Row(arm.name, detail, [time, *cells, seeds_cell(cells)], block=detail))
    return rows


def _best(arm: Arm, part: Part, column: Column, center: Center) -> Cell:
    """The score at the best rank, if all ranks are there; what was scored, for the single run."""
    values = values_of(arm, select(arm, part.runs.get(column.task, [])), column)
    if not values or (arm.own_rank and set(values) != set(arm.ranks)):
        return Cell()
    summaries = {rank: summarize([v for _, v in found.values()]) for rank, found in values.items()}
    curve = {rank: summary.center(center) for rank, summary in summaries.items()}
    rank = best_rank(curve, column.about.lower_is_better)
    runs = tuple(run for run, _ in values[rank].values())
    cell = score_cell(summaries[rank], center, DIGITS, runs)
    return replace(cell, text=f"{cell.text} ({rank})")


def _multiple(once: Arm, sweep: Arm, part: Part, columns: Sequence[Column], center: Center) -> Cell:
    """How many times as long the search took as the single run."""
    ratios: list[float] = []
    runs: list[Run] = []
    for task in dict.fromkeys(column.task for column in columns):
        of_task = part.runs.get(task, [])
        costs = Costs.of(select(once, of_task), select(sweep, of_task), sweep.ranks)
        if costs is not None:
            ratios += costs.ratios.values()
            runs += costs.runs
    if not ratios:
        return Cell()
    cell = score_cell(summarize(ratios), center, 1, tuple(runs))
    return replace(cell, text=f"{cell.value:.1f}x", summary=None)
