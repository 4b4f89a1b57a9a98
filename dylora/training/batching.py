"""Batches of similar length, so that little is computed on padding."""

from collections.abc import Sequence

import numpy as np

SHUFFLE_WINDOW = 50  # batches that are sorted together: enough to pair lengths, still random


def training_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Indices of each batch of an epoch: random, but alike in length within a batch.

    Depends on the arguments alone, so a resumed run can jump to any batch.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    sizes = np.asarray(lengths)
    window = SHUFFLE_WINDOW * batch_size
    batches = []
    for start in range(0, len(order), window):
        near = order[start : start + window]
        near = near[np.argsort(-sizes[near], kind="stable")]
        batches += [near[i : i + batch_size].tolist() for i in range(0, len(near), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def evaluation_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of each batch, longest first: memory runs out at once or not at all."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


def budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of each batch, longest first; examples x length of the longest stay within `budget`.

    An example that is longer than the budget by itself makes a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
