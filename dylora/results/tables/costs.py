"""What a usable adapter at every rank costs: one run for all ranks, or one run for each."""

from collections.abc import Sequence

from dylora.results.curves import device, seconds
from dylora.results.layout import Published, TimeLayout
from dylora.results.runs import Run
from dylora.results.stats import summarize
from dylora.results.tables.cells import Cell, Row, Table, published_row, score_cell, seeds_cell
from dylora.results.tables.selection import Part, Selection, parts_of, select, settings_notes

KEYS = ("dylora", "lora_once", "lora_sweep", "ratio")
NOTES = (
    "Seconds of training, with the scores after each epoch, and of the evaluation at the end. A "
    "run of the sweep is charged for the evaluation of its own rank only: the time of its "
    "evaluation divided by the number of ranks scored.",
    "Ratio: the sweep over the single run, for each seed that has them all on one kind of device; "
    "median over seeds ± standard deviation (n - 1), as all values.",
)


def time_tables(
    layout: TimeLayout, runs: Sequence[Run], published: Sequence[Published]
) -> list[Table]:
    """One table for each model."""
    tables = []
    for part in parts_of(runs, layout.model, layout.architecture):
        rows, notes = _measured(layout, part)
        known = [row for row in published if part.model in row.models and not part.limits]
        shown = [published_row(row, KEYS) for row in known]
        if not rows and not shown:
            continue
        rows += [Row(r.name, r.detail, [*r.cells, Cell()], r.published) for r in shown]
        once, sweep = layout.once.name, layout.sweep.name
        ranks = f"{min(layout.sweep.ranks)}-{max(layout.sweep.ranks)}"
        tables.append(
            Table(
                title=f"{layout.title} ({part.name})",
                model=part.model,
                header=[
                    "Task",
                    "Device",
                    f"{once} once, s",
                    f"{sweep} once, s",
                    f"{sweep} at ranks {ranks}, s",
                    "Ratio",
                    "Seeds",
                ],
                rows=rows,
                notes=[*layout.notes, *NOTES, *notes],
            )
        )
    return tables


def _measured(layout: TimeLayout, part: Part) -> tuple[list[Row], list[str]]:
    tasks = {task: name for task, name in layout.columns.items() if task in part.runs}
    rows, notes = [], []
    for task, name in (tasks or {task: task for task in part.runs}).items():
        once = select(layout.once, part.runs[task])
        sweep = select(layout.sweep, part.runs[task])
        if not once.chosen[layout.once.ranks[0]]:
            continue
        rows.append(_row(layout, name, once, sweep))
        notes += settings_notes(name, {layout.once.name: once, layout.sweep.name: sweep})
    return rows, notes


def _row(layout: TimeLayout, name: str, once: Selection, sweep: Selection) -> Row:
    single = once.chosen[layout.once.ranks[0]]
    highest = sweep.chosen[max(layout.sweep.ranks)]
    machine = device(next(iter(single.values())))
    alike = {seed: run for seed, run in single.items() if device(run) == machine}
    at_highest = [run for run in highest.values() if device(run) == machine]
    sweeps = {}
    for seed in alike:
        found = [sweep.chosen[rank].get(seed) for rank in layout.sweep.ranks]
        complete = [run for run in found if run is not None and device(run) == machine]
        if len(complete) == len(found):
            sweeps[seed] = complete
    total = {seed: sum(seconds(run, own=True) for run in runs) for seed, runs in sweeps.items()}
    ratio = {seed: total[seed] / seconds(alike[seed], own=False) for seed in total}
    swept = [run for runs in sweeps.values() for run in runs]
    cells = [
        _cell([seconds(run, own=False) for run in alike.values()], 1, [*alike.values()]),
        _cell([seconds(run, own=True) for run in at_highest], 1, at_highest),
        _cell([*total.values()], 1, swept),
        _cell([*ratio.values()], 2, [*(alike[seed] for seed in ratio), *swept]),
    ]
    return Row(name, machine, [*cells, seeds_cell(cells)])


def _cell(values: Sequence[float], digits: int, runs: Sequence[Run]) -> Cell:
    return score_cell(summarize(values), "median", digits, tuple(runs)) if values else Cell()
