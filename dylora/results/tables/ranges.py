"""What the whole range of ranks is worth: one line for each arm and column."""

from collections.abc import Mapping, Sequence

from dylora.results.layout import Arm, ScoreLayout
from dylora.results.stats import aurac, best_rank, smallest_rank, summarize, worst_rank
from dylora.results.tables.cells import DASH, Cell, Row, Table, plain_cell, score_cell, seeds_cell
from dylora.results.tables.paired import Values
from dylora.results.tables.selection import Column, Part

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


def range_tables(
    layout: ScoreLayout,
    part: Part,
    columns: Sequence[Column],
    values: Mapping[tuple[str, str], Values],
) -> list[Table]:
    """Of each arm and column: best and worst rank, area under the curve, smallest good rank.

    `values`: arm, column -> rank -> seed -> run and score. Arms that lack a rank are left out; no
    table if all do.
    """
    center = layout.centers[0]
    rows = []
    for column in columns:
        for arm in layout.arms:
            by_rank = values[arm.name, column.key]
            if len(arm.ranks) > 1 and all(rank in by_rank for rank in arm.ranks):
                rows.append(_range_row(arm, column, by_rank, center))
    if not rows:
        return []
    return [
        Table(
            title=f"{layout.title} ({part.name}): the range of ranks",
            model=part.model,
            header=HEADER,
            rows=rows,
            notes=[
                f"Best, worst and smallest rank: of the {center} over seeds. AURAC: area under the "
                "curve of the score against the rank (or its binary logarithm) by trapezoids, "
                "divided by the width from the lowest to the highest rank, so that it has the unit "
                f"of the score; {center} over seeds ± standard deviation (n - 1).",
                f"Smallest rank within {TOLERANCE} points of the best; for metrics in percent.",
            ],
        )
    ]


def _range_row(arm: Arm, column: Column, values: Values, center: str) -> Row:
    curve = {
        rank: summarize([score for _, score in values[rank].values()]).center(center)
        for rank in arm.ranks
    }
    metric = column.about
    lower, digits = metric.lower_is_better, metric.unit.digits
    best, worst = best_rank(curve, lower), worst_rank(curve, lower)
    good = smallest_rank(curve, TOLERANCE, lower) if metric.unit.points else None
    seeds = sorted(set.intersection(*(set(values[rank]) for rank in arm.ranks)))
    runs = tuple(dict.fromkeys(run for rank in arm.ranks for run, _ in values[rank].values()))
    areas = []
    for log2 in (False, True):
        found = [aurac({r: values[r][seed][1] for r in arm.ranks}, log2) for seed in seeds]
        known = [area for area in found if area is not None]
        areas.append(score_cell(summarize(known), center, digits, runs) if known else Cell())
    cells = [
        plain_cell(curve[best], digits, runs),
        Cell(str(best)),
        plain_cell(curve[worst], digits, runs),
        Cell(str(worst)),
        *areas,
        Cell(DASH if good is None else str(good)),
        seeds_cell(areas),
    ]
    return Row(arm.name, column.heading, cells)
