"""What a usable adapter at every rank costs: one run for all ranks, or one run for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from dylora.results.curves import device, seconds
from dylora.results.layout import TimeLayout
from dylora.results.published import Published
from dylora.results.runs import Run
from dylora.results.stats import Center, summarize
from dylora.results.tables.cells import Cell, Row, Table, published_row, score_cell, seeds_cell
from dylora.results.tables.findings import center_of, protocol_note
from dylora.results.tables.selection import Part, Selection, parts_of, select, settings_notes

KEYS = ("dylora", "lora_once", "lora_sweep", "ratio")


def time_tables(
    layout: TimeLayout, runs: Sequence[Run], published: Sequence[Published]
) -> list[Table]:
    """One table for each model and protocol."""
    tables = []
    for part in parts_of(runs, layout):
        center = center_of(part, layout)
        rows, notes = _measured(layout, part, center)
        shown = part.published(layout, published)
        if not rows and not shown:
            continue
        for p in shown:
            row = published_row(p, KEYS, part.model, "other")
            rows.append(Row(row.name, row.detail, [*row.cells, Cell()], p, row.block))
        once, sweep = layout.once.name, layout.sweep.name
        ranks = f"{min(layout.sweep.ranks)}-{max(layout.sweep.ranks)}"
        columns = [f"{once} once, s", f"{sweep} once, s", f"{sweep} at ranks {ranks}, s", "Ratio"]
        tables.append(
            Table(
                title=f"{layout.title} ({part.name}): {center} over seeds",
                model=part.model,
                header=["Task", "Device", *columns, "Seeds"],
                rows=rows,
                notes=[*layout.notes, protocol_note(part), *_conventions(part, center), *notes],
            )
        )
    return tables


def _conventions(part: Part, center: Center) -> list[str]:
    if not part.runs:
        return [f"No run of this table is finished yet ({part.name})."]
    return [
        "Seconds of training, with the scores after each epoch, and of the evaluation at the end. "
        "A run of the sweep is charged for the evaluation of its own rank only: the time of its "
        "evaluation divided by the number of ranks scored.",
        "Ratio: the sweep over the single run, for each seed that has them all on one kind of "
        f"device; {center} over seeds ± standard deviation (n - 1), as all values.",
    ]


def _measured(layout: TimeLayout, part: Part, center: Center) -> tuple[list[Row], list[str]]:
    tasks = {task: name for task, name in layout.columns.items() if task in part.runs}
    rows, notes = [], []
    for task, name in (tasks or {task: task for task in part.runs}).items():
        once = select(layout.once, part.runs[task])
        sweep = select(layout.sweep, part.runs[task])
        costs = Costs.of(once, sweep, layout.sweep.ranks)
        if costs is None:
            continue
        rows.append(_row(name, costs, center))
        notes += settings_notes(name, {layout.once.name: once, layout.sweep.name: sweep})
    return rows, notes


@dataclass(frozen=True)
class Costs:
    """Runs of all ranks at once, and sweeps over the ranks, on one kind of device."""

    device: str
    once: dict[int, Run]  # by seed
    sweeps: dict[int, list[Run]]  # by seed, where it has a run for each rank
    highest: list[Run]  # the sweep's runs at the highest rank, of any seed

    @classmethod
    def of(cls, once: Selection, sweep: Selection, ranks: Sequence[int]) -> "Costs | None":
        """The device is that of the first of the single runs; None without any."""
        single = next(iter(once.chosen.values()), {})
        if not single:
            return None
        machine = device(next(iter(single.values())))
        alike = {seed: run for seed, run in single.items() if device(run) == machine}
        sweeps = {}
        for seed in alike:
            found = [sweep.chosen[rank].get(seed) for rank in ranks]
            complete = [run for run in found if run is not None and device(run) == machine]
            if len(complete) == len(found):
                sweeps[seed] = complete
        highest = sweep.chosen[max(ranks)].values()
        return cls(machine, alike, sweeps, [run for run in highest if device(run) == machine])

    @property
    def totals(self) -> dict[int, float]:
        """seed -> seconds of its sweep."""
        return {seed: sum(seconds(r, own=True) for r in runs) for seed, runs in self.sweeps.items()}

    @property
    def ratios(self) -> dict[int, float]:
        """seed -> how many times as long its sweep took as its single run."""
        return {s: total / seconds(self.once[s], own=False) for s, total in self.totals.items()}

    @property
    def runs(self) -> list[Run]:
        """All that the ratios rest on."""
        swept = [run for runs in self.sweeps.values() for run in runs]
        return [*(self.once[seed] for seed in self.sweeps), *swept]


def _row(name: str, costs: Costs, center: Center) -> Row:
    def cell(values: Sequence[float], runs: Sequence[Run]) -> Cell:
        return score_cell(summarize(values), center, 2, tuple(runs)) if values else Cell()

    once, swept = costs.once.values(), [run for runs in costs.sweeps.values() for run in runs]
    cells = [
        cell([seconds(run, own=False) for run in once], [*once]),
        cell([seconds(run, own=True) for run in costs.highest], costs.highest),
        cell([*costs.totals.values()], swept),
        cell([*costs.ratios.values()], costs.runs),
    ]
    return Row(name, costs.device, [*cells, seeds_cell(cells)], block=name)
