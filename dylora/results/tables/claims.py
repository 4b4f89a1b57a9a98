"""The paper's claims, one by one: what it printed, what our runs say, and the verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from dylora.results.curves import band, device, seconds
from dylora.results.layout import Arm, ClaimsLayout, Measure, PaperClaim
from dylora.results.published import Published
from dylora.results.runs import Run
from dylora.results.stats import best_rank, summarize
from dylora.results.tables.cells import DASH, DIGITS, Cell, Row, Table, number, signed
from dylora.results.tables.findings import protocol_note
from dylora.results.tables.paired import paired_test
from dylora.results.tables.selection import (
    Column,
    Part,
    Values,
    columns_of_layout,
    parts_of,
    select,
    values_of,
)

HEADER = ("Claim", "On", "Published", "Ours", "Difference", "95% interval", "Seeds", "Verdict")
Pairs = dict[int, tuple[float, float]]  # seed -> ours and theirs
References = Mapping[str, Sequence[Published]]  # file -> rows


class Verdict(StrEnum):
    """What our runs say of a claim."""

    reproduced = "reproduced"
    not_reproduced = "not reproduced"
    undecided = "undecided"  # no interval, or one that has what the claim needs inside
    not_run = "not run"


@dataclass(frozen=True)
class Evidence:
    """What there is on a claim for one task, or for the mean of several.

    `published` and `ours` are the two sides; the difference is ours minus theirs, or for times how
    many times as long theirs took. Its interval is over seeds (Student's t, from three on), or else
    of the paired bootstrap over the examples.
    """

    claim: PaperClaim
    on: str
    published: tuple[float, float] | None
    ours: tuple[float, float] | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    seeds: int = 0
    runs: tuple[Run, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.difference is None:
            return Verdict.not_run
        low, high = self.interval or (-math.inf, math.inf)
        if low > self.bound:
            return Verdict.reproduced
        return Verdict.not_reproduced if high < self.bound else Verdict.undecided

    @property
    def bound(self) -> float:
        """Reproduced: all of the interval is above it; not reproduced: all of it is below."""
        return self.claim.at_least if self.claim.measure == Measure.time else 0 - self.claim.margin


def claim_tables(layout: ClaimsLayout, runs: Sequence[Run], published: References) -> list[Table]:
    """For each model and protocol a table with a block for each claim."""
    tables = []
    for part in parts_of(runs, layout):
        if part.limits:
            continue  # trials decide nothing
        found = [(claim, evidence(layout, claim, part, published)) for claim in layout.claims]
        if part.runs and not any(each.runs for _, several in found for each in several):
            continue
        shown = part.published(layout, [row for rows in published.values() for row in rows])
        rows = [_row(each, bool(shown)) for _, several in found for each in several]
        tables.append(
            Table(
                title=f"{layout.title} ({part.name})",
                model=part.model,
                header=HEADER,
                rows=rows,
                notes=[*layout.notes, protocol_note(part), *_notes(layout)],
            )
        )
    return tables


def _notes(layout: ClaimsLayout) -> list[str]:
    files = dict.fromkeys(
        name for claim in layout.claims for name in (claim.ours_in, claim.theirs_in)
    )
    return [
        "Published and ours: the two sides of the claim; their difference, or for times how many "
        "times as long the second takes. Scores in points, the mean over seeds.",
        "Interval: over seeds (Student's t, from three seeds on), else by the paired bootstrap "
        "over the examples. Reproduced: all of it is above what the claim needs, which is in "
        "brackets; not reproduced: all of it is below; else, or without an interval, undecided.",
        f"Published numbers: {', '.join(f'results/reference/{name}.yaml' for name in files)}.",
    ]


def evidence(
    layout: ClaimsLayout, claim: PaperClaim, part: Part, published: References
) -> list[Evidence]:
    """What there is on a claim: on all of its tasks together, and on each that was run.

    With `layout.by_task` on each task, run or not, and not on all together.
    """
    columns = [
        column
        for column in columns_of_layout(layout)
        if not claim.columns or column.key in claim.columns
    ]
    single = {column: _on_task(claim, column, part, published) for column in columns}
    if layout.by_task:
        return [found for found, _ in single.values()]
    run = [column for column in columns if single[column][1]]
    if len(columns) == 1 or len(run) == 1:
        return [single[column][0] for column in run or columns]
    return [_together(claim, columns, run, single, published), *(single[c][0] for c in run)]


def _on_task(
    claim: PaperClaim, column: Column, part: Part, published: References
) -> tuple[Evidence, Pairs]:
    printed = _printed(claim, [column.key], published)
    runs = part.runs.get(column.task, [])
    if claim.measure == Measure.time:
        pairs, used = _times(claim, runs)
        return _judged(claim, column.heading, printed, pairs, None, used), pairs
    ours, theirs = (values_of(arm, select(arm, runs), column) for arm in (claim.ours, claim.theirs))
    a, b = _ranks(claim, claim.ours, ours, column), _ranks(claim, claim.theirs, theirs, column)
    pairs = _pairs(ours, theirs, a, b)
    used = tuple(
        dict.fromkeys(
            values[rank][seed][0]
            for values, ranks in ((ours, a), (theirs, b))
            for rank in ranks
            for seed in pairs
        )
    )
    interval = None
    if pairs and len(a) == 1 and a == b:
        cuts = claim.ours.truncation, claim.theirs.truncation
        test = paired_test(column, a[0], ours, theirs, cuts)
        if test is not None:
            interval = column.about.printed(test.low), column.about.printed(test.high)
    return _judged(claim, column.heading, printed, pairs, interval, used), pairs


def _ranks(claim: PaperClaim, arm: Arm, values: Values, column: Column) -> list[int]:
    """The ranks that are compared: those of the arm, or the one with the best mean over seeds."""
    if claim.measure != Measure.best:
        return arm.ranks
    if not values or not set(arm.ranks) <= set(values):
        return []
    means = {r: summarize([score for _, score in values[r].values()]).mean for r in arm.ranks}
    return [best_rank(means, column.about.lower_is_better)]


def _pairs(ours: Values, theirs: Values, a: Sequence[int], b: Sequence[int]) -> Pairs:
    """Means over the ranks for each seed that both sides have at all of them."""
    having = [set(ours.get(rank, {})) for rank in a] + [set(theirs.get(rank, {})) for rank in b]
    seeds = set.intersection(*having) if a and b else set()
    return {
        seed: (fmean(ours[r][seed][1] for r in a), fmean(theirs[r][seed][1] for r in b))
        for seed in sorted(seeds)
    }


def _times(claim: PaperClaim, runs: Sequence[Run]) -> tuple[Pairs, tuple[Run, ...]]:
    """Seconds of both sides for each seed that has all of its runs on one kind of device."""
    sides = [_by_seed(arm, runs) for arm in (claim.ours, claim.theirs)]
    pairs: Pairs = {}
    used: list[Run] = []
    for seed in sorted(set(sides[0]) & set(sides[1])):
        both = [*sides[0][seed], *sides[1][seed]]
        if len({device(run) for run in both}) == 1:
            ours, theirs = (
                sum(seconds(run, own=arm.own_rank) for run in side[seed])
                for arm, side in zip((claim.ours, claim.theirs), sides, strict=True)
            )
            pairs[seed] = ours, theirs
            used += both
    return pairs, tuple(used)


def _by_seed(arm: Arm, runs: Sequence[Run]) -> dict[int, list[Run]]:
    """seed -> the run of an arm, or its run for each rank if it has them all."""
    chosen = select(arm, runs).chosen
    if not set(arm.ranks) <= set(chosen):
        return {}
    seeds = set.intersection(*(set(chosen[rank]) for rank in arm.ranks))
    return {s: list(dict.fromkeys(chosen[rank][s] for rank in arm.ranks)) for s in seeds}


def _together(
    claim: PaperClaim,
    columns: Sequence[Column],
    run: Sequence[Column],
    single: Mapping[Column, tuple[Evidence, Pairs]],
    published: References,
) -> Evidence:
    """The mean of the tasks that were run, for seeds that have them all; published as well."""
    meant = run or columns
    keys = ["average"] if len(meant) == len(columns) else [column.key for column in meant]
    printed = _printed(claim, keys, published) or _printed(claim, [c.key for c in meant], published)
    seeds = set.intersection(*(set(single[c][1]) for c in run)) if run else set()
    pairs = {
        seed: (fmean(single[c][1][seed][0] for c in run), fmean(single[c][1][seed][1] for c in run))
        for seed in sorted(seeds)
    }
    used = tuple(dict.fromkeys(r for c in run for r in single[c][0].runs if r.seed in seeds))
    on = f"mean of {len(meant)} tasks"
    return _judged(claim, on, printed, pairs, None, used)


def _judged(
    claim: PaperClaim,
    on: str,
    printed: tuple[float, float] | None,
    pairs: Pairs,
    interval: tuple[float, float] | None,
    runs: tuple[Run, ...],
) -> Evidence:
    if not pairs:
        return Evidence(claim, on, printed)
    summary = summarize([apart(claim, both) for both in pairs.values()])
    ours = fmean(a for a, _ in pairs.values()), fmean(b for _, b in pairs.values())
    judged = band(summary) or interval
    return Evidence(claim, on, printed, ours, summary.mean, judged, len(pairs), runs)


def _printed(
    claim: PaperClaim, keys: Sequence[str], published: References
) -> tuple[float, float] | None:
    """Both sides as printed, means over keys and ranks; None unless all of them are."""
    if claim.in_one_row:
        rows = published.get(claim.ours_in, [])
        both = [tuple(row.number(key) for key in claim.in_one_row) for row in rows]
        return next(((a, b) for a, b in both if a is not None and b is not None), None)
    keys = ["seconds"] if claim.measure == Measure.time else keys
    sides = []
    for arm, file in ((claim.ours, claim.ours_in), (claim.theirs, claim.theirs_in)):
        ranks = claim.at or [str(rank) for rank in arm.ranks]
        rows = [r for r in published.get(file, []) if r.name == arm.name and r.rank in ranks]
        values = [row.number(key) for row in rows for key in keys]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(ranks) * len(keys):
            return None
        sides.append(fmean(known))
    return sides[0], sides[1]


def apart(claim: PaperClaim, sides: tuple[float, float]) -> float:
    """Ours minus theirs, or for times how many times as long theirs took."""
    return sides[1] / sides[0] if claim.measure == Measure.time else sides[0] - sides[1]


def _row(found: Evidence, beside_published: bool) -> Row:
    time = found.claim.measure == Measure.time

    def gap(value: float) -> str:
        return f"{value:.2f}x" if time else signed(value)

    def sides(both: tuple[float, float]) -> str:
        return f"{number(both[0], DIGITS)} against {number(both[1], DIGITS)}"

    printed = found.published if beside_published else None
    published = ours = difference = interval = DASH
    if printed is not None:
        published = f"{sides(printed)}: {gap(apart(found.claim, printed))}"
    if found.ours is not None and found.difference is not None:
        ours, difference = sides(found.ours), gap(found.difference)
    if found.interval is not None:
        interval = " to ".join(map(gap, found.interval))
    needed = f" (above {found.bound:g}{'x' if time else ''})" if found.runs else ""
    cells = [
        Cell(published),
        Cell(ours, runs=found.runs),
        Cell(difference, found.difference, runs=found.runs),
        Cell(interval),
        Cell(str(found.seeds) if found.seeds else DASH),
        Cell(f"{found.verdict}{needed}"),
    ]
    return Row(found.claim.text, found.on, cells, block=found.claim.text)
