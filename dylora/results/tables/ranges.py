"""What the whole range of ranks is worth: one line for each arm and column."""

from collections.abc import Sequence

from dylora.results.layout import Arm
from dylora.results.stats import (
    Center,
    aurac,
    best_rank,
    smallest_rank,
    summarize,
    worst_rank,
)
from dylora.results.tables.cells import (
    DASH,
    DIGITS,
    Cell,
    Row,
    Table,
    plain_cell,
    score_cell,
    seeds_cell,
)
from dylora.results.tables.findings import Findings
from dylora.results.tables.selection import Column, Values

TOLERANCE = 0.5  # points; a rank so close to the best is as good
HEADER = (
    "Method",
    "Score",
    "Best",
    "Rank",
    "Worst",
    "Rank",
    "AURAC",
    "AURAC (log2)",
    f"Smallest rank within {TOLERANCE}",
    "Seeds",
)


def range_tables(findings: Findings) -> list[Table]:
    """Of each arm and column: best and worst rank, area under the curve, smallest good rank.

    Over all ranks that the runs have, not only those that the experiment shows: a run has one area
    in every table. Arms that lack a rank are left out; no table if all do.
    """
    layout, center = findings.layout, findings.center
    rows = []
    for column in findings.columns:
        for arm in layout.arms:
            values = findings.values[arm.name, column.key]
            ranks = _common_ranks(values)
            if len(ranks) > 1 and set(arm.ranks) <= set(ranks):
                rows.append(_range_row(arm, column, values, ranks, center))
    if not rows:
        return []
    return [
        Table(
            title=f"{layout.title} ({findings.part.name}): the range of ranks",
            model=findings.part.model,
            header=HEADER,
            rows=rows,
            notes=[
                "Over all ranks that the runs were scored at. Best, worst and smallest rank: of "
                f"the {center} over seeds. AURAC: area under the "
                "curve of the score against the rank (or its binary logarithm) by trapezoids, "
                "divided by the width from the lowest to the highest rank, so that it has the unit "
                f"of the score; {center} over seeds ± standard deviation (n - 1).",
                f"Smallest rank within {TOLERANCE} points of the best; for metrics in percent.",
            ],
        )
    ]


def _common_ranks(values: Values) -> list[int]:
    """The ranks that all seeds have."""
    seeds = {seed for by_seed in values.values() for seed in by_seed}
    return sorted(rank for rank, by_seed in values.items() if set(by_seed) == seeds)


def _range_row(
    arm: Arm, column: Column, values: Values, ranks: Sequence[int], center: Center
) -> Row:
    curve = {
        rank: summarize([score for _, score in values[rank].values()]).center(center)
        for rank in ranks
    }
    metric = column.about
    lower, digits = metric.lower_is_better, DIGITS
    best, worst = best_rank(curve, lower), worst_rank(curve, lower)
    good = smallest_rank(curve, TOLERANCE, lower) if metric.unit.points else None
    runs = tuple(dict.fromkeys(run for rank in ranks for run, _ in values[rank].values()))
    areas = []
    for log2 in (False, True):
        found = [
            aurac({r: values[r][seed][1] for r in ranks}, log2) for seed in sorted(values[best])
        ]
        known = [area for area in found if area is not None]
        areas.append(score_cell(summarize(known), center, digits, runs))
    cells = [
        plain_cell(curve[best], digits, runs),
        Cell(str(best)),
        plain_cell(curve[worst], digits, runs),
        Cell(str(worst)),
        *areas,
        Cell(DASH if good is None else str(good)),
        seeds_cell(areas),
    ]
    return Row(arm.name, column.heading, cells, block=column.heading)
