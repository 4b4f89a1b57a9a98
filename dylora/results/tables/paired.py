"""Paired tests of two arms from the predictions that their runs kept."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dylora.results.predictions import predicted
from dylora.results.runs import Run
from dylora.results.stats import Comparison, compare
from dylora.results.tables.selection import Column, Values
from dylora.suite.config import Truncation


@dataclass(frozen=True)
class PairedTest:
    """One arm against another on a column at a rank; without predictions no comparison."""

    model: str
    column: Column
    rank: int
    arm: str
    against: str
    comparison: Comparison | None


Cuts = tuple[Truncation | None, Truncation | None]  # of the two arms


def paired_test(
    column: Column, rank: int, ours: Values, theirs: Values, cuts: Cuts = (None, None)
) -> Comparison | None:
    """Compare at a rank the seeds that both arms have, each cut in its way.

    None where there is no such seed, where the metric cannot be recomputed from predictions (texts)
    or where predictions are missing or do not fit the labels.
    """
    seeds = sorted(set(ours.get(rank, {})) & set(theirs.get(rank, {})))
    if not seeds or column.about.sums is None:
        return None
    pairs = [(ours[rank][seed][0], theirs[rank][seed][0]) for seed in seeds]
    return _compared(column.metric, rank, tuple(pairs), cuts)


@lru_cache(maxsize=4096)  # experiments share runs
def _compared(
    metric: str, rank: int, pairs: tuple[tuple[Run, Run], ...], cuts: Cuts
) -> Comparison | None:
    runs = [run for pair in pairs for run in pair]
    labels = [predicted(run, "labels") for run in runs]
    outputs = [
        # At its highest rank every truncation is the run itself.
        predicted(run, f"rank{rank}", cut if rank < run.max_rank else None)
        for run, cut in zip(runs, cuts * len(pairs), strict=True)
    ]
    true = labels[0]
    if true is None or not all(
        other is not None and np.array_equal(true, other) for other in labels
    ):
        return None
    fitting = [values for values in outputs if values is not None and len(values) == len(true)]
    if len(fitting) < len(runs):
        return None
    return compare(metric, true, np.stack(fitting[::2]), np.stack(fitting[1::2]))
