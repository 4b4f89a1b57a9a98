"""Paired tests of two arms from the predictions that their runs kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dylora.metrics import METRICS
from dylora.results.predictions import kept_features, predicted
from dylora.results.runs import Run
from dylora.results.stats import Comparison, compare, compare_features
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

    None where there is no such seed, where the metric cannot be recomputed from what is kept or
    where predictions are missing or do not fit the labels.
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
    # At its highest rank every truncation is the run itself.
    used = [
        cut if rank < run.max_rank else None
        for run, cut in zip(runs, cuts * len(pairs), strict=True)
    ]
    sums = METRICS[metric].sums
    if sums is not None and sums.features is None:
        features = [
            kept_features(run, metric, rank, cut) for run, cut in zip(runs, used, strict=True)
        ]
        both = _sides(features)
        return None if both is None else compare_features(metric, *both)
    labels = [predicted(run, "labels") for run in runs]
    outputs = [predicted(run, f"rank{rank}", cut) for run, cut in zip(runs, used, strict=True)]
    true = labels[0]
    if true is None or not all(
        other is not None and np.array_equal(true, other) for other in labels
    ):
        return None
    both = _sides(outputs)
    if both is None or both[0].shape[1] != len(true):
        return None
    return compare(metric, true, *both)


def _sides(values: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray] | None:
    """Ours and theirs, which alternate, both (seeds, examples, ...); None unless all fit."""
    there = [each for each in values if each is not None]
    if len(there) < len(values) or len({each.shape for each in there}) > 1:
        return None
    return np.stack(there[::2]), np.stack(there[1::2])
