"""What stands beside the scores of a row: the size of what is kept, the time of training."""

from collections.abc import Sequence

from dylora.results.curves import device
from dylora.results.runs import Run
from dylora.results.stats import Center, summarize
from dylora.results.tables.cells import Cell, score_cell


def parameters_cell(scores: Sequence[Cell], rank: int) -> Cell:
    """What the runs behind the scores keep at a rank; tasks with another head may differ."""
    runs = _runs(scores)
    counts = sorted({_parameters(run, rank) for run in runs})
    if not counts:
        return Cell()
    texts = dict.fromkeys(_millions(count) for count in (counts[0], counts[-1]))
    return Cell(" to ".join(texts), counts[-1], runs=runs)


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}M" if count < 1e6 else f"{count / 1e6:.3g}M"


def _parameters(run: Run, rank: int) -> int:
    """Trained parameters, the head included; of an adapter only what rank `rank` needs."""
    trained, low_rank = (run.record["parameters"][key] for key in ("trained", "low_rank"))
    return trained - low_rank + low_rank * rank // run.max_rank if rank else trained


def seconds_cell(scores: Sequence[Cell], center: Center) -> Cell:
    """The time of training with the scores after each epoch; none if the devices differ."""
    runs = _runs(scores)
    if len({device(run) for run in runs}) != 1:
        return Cell()
    return score_cell(summarize([run.record["times"]["train"] for run in runs]), center, 2, runs)


def _runs(cells: Sequence[Cell]) -> tuple[Run, ...]:
    return tuple(dict.fromkeys(run for cell in cells for run in cell.runs))
