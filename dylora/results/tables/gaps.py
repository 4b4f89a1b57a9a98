"""How far each arm is from the one that it is measured against, at every rank, in pairs."""

from collections.abc import Mapping
from statistics import fmean

from dylora.results.curves import band
from dylora.results.layout import Arm, ScoreLayout
from dylora.results.runs import Run
from dylora.results.stats import summarize
from dylora.results.tables.cells import Cell, Row, Table, signed
from dylora.results.tables.findings import Findings
from dylora.results.tables.selection import Column

Gaps = dict[int, dict[int, float]]  # seed -> rank -> our score minus the bar's


def gap_tables(findings: Findings) -> list[Table]:
    """Of each arm and task, and of their mean where the layout has one: differences from its bar.

    A difference is of two runs with the same seed and task. Arms without a pair are left out; no
    table if all are, or without a bar.
    """
    layout = findings.layout
    bar = layout.bar_arm
    if bar is None:
        return []
    rows = [row for arm in others(layout, bar) for row in _arm_rows(findings, arm, bar)]
    if not rows:
        return []
    return [
        Table(
            title=f"{layout.title} ({findings.part.name}): gap to {bar.name}",
            model=findings.part.model,
            header=["Method", "Score", *map(str, bar.ranks), "Mean", "Worst rank", "Seeds"],
            rows=rows,
            brief=True,
            notes=[
                f"Points above (+) or below (-) {bar.name}, in pairs of runs with one seed, the "
                "mean over seeds, in brackets its 95% interval (Student's t) from three seeds on. "
                "Mean and worst rank: over the ranks shown. Mean of tasks: for the seeds that have "
                "all of the tasks.",
            ],
        ),
    ]


def others(layout: ScoreLayout, bar: Arm) -> list[Arm]:
    """The arms beside the bar that have all its ranks."""
    return [arm for arm in layout.arms if arm is not bar and {*bar.ranks} <= {*arm.ranks}]


def _arm_rows(findings: Findings, arm: Arm, bar: Arm) -> list[Row]:
    by_column: dict[Column, tuple[Gaps, tuple[Run, ...]]] = {}
    for column in findings.columns:
        gaps = gaps_in(findings, arm, bar, column)
        if gaps:
            ours, theirs = (findings.values[each.name, column.key] for each in (arm, bar))
            both = [values[rank] for values in (ours, theirs) for rank in bar.ranks]
            used = dict.fromkeys(by_seed[seed][0] for by_seed in both for seed in gaps)
            by_column[column] = gaps, tuple(used)
    rows = [_row(arm, column.heading, *found) for column, found in by_column.items()]
    together = _together([gaps for gaps, _ in by_column.values()])
    if findings.layout.average and len(rows) > 1 and together:
        runs = tuple(run for _, used in by_column.values() for run in used)
        rows.insert(0, _row(arm, f"mean of {len(rows)} tasks", together, runs))
    return rows


def gaps_in(findings: Findings, arm: Arm, bar: Arm, column: Column) -> Gaps:
    """For the seeds that both have at all ranks of the bar."""
    ours, theirs = (findings.values[each.name, column.key] for each in (arm, bar))
    sign = -1 if column.about.lower_is_better else 1
    having = [set(values.get(rank, {})) for values in (ours, theirs) for rank in bar.ranks]
    return {
        seed: {rank: sign * (ours[rank][seed][1] - theirs[rank][seed][1]) for rank in bar.ranks}
        for seed in sorted(set.intersection(*having))
    }


def _together(several: list[Gaps]) -> Gaps:
    """The mean over tasks, for the seeds that have them all."""
    seeds = set.intersection(*map(set, several)) if several else set()
    return {
        seed: {rank: fmean(gaps[seed][rank] for gaps in several) for rank in several[0][seed]}
        for seed in sorted(seeds)
    }


def _row(arm: Arm, detail: str, gaps: Gaps, runs: tuple[Run, ...]) -> Row:
    seeds = list(gaps.values())
    cells = [_cell([at[rank] for at in seeds], runs) for rank in seeds[0]]
    cells.append(_cell([fmean(at.values()) for at in seeds], runs))
    cells.append(_cell([min(_mean_over_seeds(seeds).values())], runs))
    return Row(arm.name, detail, [*cells, Cell(str(len(seeds)))], block=arm.name)


def _mean_over_seeds(seeds: list[dict[int, float]]) -> Mapping[int, float]:
    return {rank: fmean(at[rank] for at in seeds) for rank in seeds[0]}


def _cell(values: list[float], runs: tuple[Run, ...]) -> Cell:
    summary = summarize(values)
    interval = band(summary)
    text = signed(summary.mean)
    if interval is not None:
        text += f" ({signed(interval[0])} to {signed(interval[1])})"
    return Cell(text, summary.mean, summary, runs)
