"""Which rank to deploy of a run that was scored at several, and what it costs in memory."""

from dataclasses import dataclass

from dylora.collection import Run, lower_is_better
from dylora.errors import UserError
from dylora.stats import smallest_rank

FLOAT32 = 4  # bytes; adapters are kept in it


@dataclass(frozen=True)
class Choice:
    """The smallest rank that is good enough, and the scores it was chosen by."""

    rank: int
    metric: str
    scores: dict[int, float]  # in percent, or as the generation metric has it
    tolerance: float


def choose_rank(run: Run, tolerance: float, metric: str | None = None) -> Choice:
    """The smallest rank whose score is within `tolerance` points of the best rank's.

    By default the task's own metric, for generation the first that was computed. Raises UserError
    for an unfinished run, one without ranks, or a metric that it does not have.
    """
    if not run.done:
        raise UserError(f"{run.folder}: the run is {run.record['status']}; finish it first")
    if not run.max_rank:
        raise UserError(f"{run.folder}: method={run.method} has no ranks to choose from")
    if tolerance < 0:
        raise UserError(f"tolerance={tolerance}: must be 0 or more, in points such as 0.5")
    known = [name for name in next(iter(run.scores.values())) if _curve(run, name)]
    default = run.option("task.select_metric")
    name = metric or (default if default in known else next(iter(known), default))
    if name not in known:
        raise UserError(f"metric={name}: the run has {', '.join(known) or 'no metrics'}")
    curve = _curve(run, name)
    return Choice(smallest_rank(curve, tolerance, lower_is_better(name)), name, curve, tolerance)


def _curve(run: Run, metric: str) -> dict[int, float]:
    values = {rank: scores.get(metric) for rank, scores in sorted(run.scores.items())}
    return {rank: run.unit * value for rank, value in values.items() if value is not None}


def adapter_size(run: Run, rank: int) -> int:
    """Trained parameters to deploy at a rank: that part of the low-rank matrices, and the head.

    Raises UserError if the record does not tell.
    """
    counts = run.record["parameters"]
    if not all(isinstance(counts.get(part), int) for part in ("low_rank", "trained")):
        raise UserError(f"{run.folder}: the record has no parameter counts; run again")
    return counts["low_rank"] * rank // run.max_rank + counts["trained"] - counts["low_rank"]
