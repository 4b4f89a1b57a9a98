"""The labels that runs kept beside their records, as numbers. No torch here."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from dylora.metrics import metric_named
from dylora.results.runs import Run, read_lines
from dylora.suite.config import Kind, Truncation


@lru_cache(maxsize=256)  # labels serve every rank, outputs several tests
def predicted(run: Run, which: str, cut: Truncation | None = None) -> np.ndarray | None:
    """Class ids or scores (examples,) from the kept outputs; None if missing or damaged.

    `which` is `labels` for what is true, or such as `rank4`, of a LoRA `cut` in some way.
    """
    split = next(iter(run.option("task.eval_splits")), "")
    lines = read_lines(run.folder / "outputs" / (cut or "") / f"{split}.{which}.txt")
    if not lines:
        return None
    try:
        if run.option("task.kind") == Kind.regression:
            return np.array([float(line) for line in lines])
        ids = {name: number for number, name in enumerate(run.option("task.labels"))}
        return np.array([ids[line] for line in lines], dtype=np.int16)
    except (ValueError, KeyError):
        return None


@lru_cache(maxsize=256)
def kept_features(
    run: Run, metric: str, rank: int, cut: Truncation | None = None
) -> np.ndarray | None:
    """What a metric of texts sums over inputs, (inputs, features); None if missing or damaged."""
    split = next(iter(run.option("task.eval_splits")), "")
    name = f"{split}.rank{rank}.{metric}.csv"
    lines = read_lines(run.folder / "outputs" / (cut or "") / name)
    if not lines:
        return None
    try:
        return np.array([[int(number) for number in line.split(",")] for line in lines])
    except ValueError:
        return None


def majority(runs: Iterable[Run], metric: str) -> float | None:
    """The score of always predicting the most frequent class, as it is printed.

    None where there are no classes, or no run has kept its labels.
    """
    about = metric_named(metric)
    for run in runs:
        labels = predicted(run, "labels")
        if labels is None or run.option("task.kind") != Kind.classification:
            continue
        if about.sums is None or about.sums.features is None:
            continue
        classes = len(run.option("task.labels"))
        constant = np.full_like(labels, np.bincount(labels).argmax())
        sums = about.sums.features(constant, labels, classes).sum(axis=0)
        return about.printed(float(about.sums.score(sums)))
    return None
