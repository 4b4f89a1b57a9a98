"""How much seeds move a score and a gap, and so how many a small difference needs."""

from collections.abc import Sequence
from statistics import fmean, variance

from dylora.results.stats import seeds_needed
from dylora.results.tables.cells import Cell, Row, Table, number
from dylora.results.tables.findings import Findings
from dylora.results.tables.gaps import gaps_in, others

MATTERS = 0.5  # points, a difference that should not be missed


def noise_tables(findings: Findings) -> list[Table]:
    """By task; none without a bar, or before it and another arm have two seeds at all its ranks."""
    layout = findings.layout
    bar = layout.bar_arm
    if bar is None:
        return []
    rows = []
    for column in findings.columns:
        values = findings.values[bar.name, column.key]
        seeds = set.intersection(*(set(values.get(rank, {})) for rank in bar.ranks))
        scores = [fmean(values[rank][seed][1] for rank in bar.ranks) for seed in sorted(seeds)]
        gaps = [gaps_in(findings, arm, bar, column) for arm in others(layout, bar)]
        alone = _within([scores])
        paired = _within([[fmean(at.values()) for at in each.values()] for each in gaps])
        if alone is not None and paired:
            needed = seeds_needed(paired, MATTERS)
            runs = tuple(values[rank][seed][0] for rank in bar.ranks for seed in sorted(seeds))
            texts = (number(alone, 2), number(paired, 2), str(needed), str(len(seeds)))
            cells = [Cell(text, runs=runs) for text in texts]
            rows.append(Row(column.heading, column.metric, cells))
    if not rows:
        return []
    note = (
        f"Standard deviations over seeds of the mean over ranks: of {bar.name}, and of the gaps "
        "to it in pairs with one seed, pooled over the methods. Then the seeds with which a true "
        f"gap of {MATTERS} points is found in four cases of five (two-sided t-test at 5%)."
    )
    return [
        Table(
            title=f"{layout.title} ({findings.part.name}): what seeds change",
            model=findings.part.model,
            header=["Task", "Score", "Its deviation", "That of gaps", f"For {MATTERS}", "Seeds"],
            rows=rows,
            brief=True,
            notes=[note],
        )
    ]


def _within(groups: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation within groups, pooled; None if none has two values."""
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    squares = sum(variance(group) * (len(group) - 1) for group in several)
    return (squares / freedom) ** 0.5 if freedom else None
