"""Batches of similar length."""

import numpy as np

from dylora.training.batching import budget_batches, evaluation_batches, training_batches

LENGTHS = np.random.default_rng(0).integers(5, 120, size=1000).tolist()


def padding(batches: list[list[int]]) -> float:
    """The part of all computed tokens that is padding."""
    computed = sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)
    return 1 - sum(LENGTHS) / computed


def test_every_example_is_in_exactly_one_batch() -> None:
    for batches in (training_batches(LENGTHS, 32, 0, 0), evaluation_batches(LENGTHS, 32)):
        assert sorted(i for batch in batches for i in batch) == list(range(1000))
        assert sorted(map(len, batches)) == [8] + [32] * 31


def test_little_is_padding() -> None:
    shuffled = np.random.default_rng(1).permutation(1000).tolist()
    unsorted = [shuffled[i : i + 32] for i in range(0, 1000, 32)]
    assert padding(unsorted) > 0.4
    assert padding(training_batches(LENGTHS, 32, 0, 0)) < 0.05
    assert padding(evaluation_batches(LENGTHS, 32)) < 0.05


def test_batches_depend_on_seed_and_epoch_and_their_order_is_random() -> None:
    first = training_batches(LENGTHS, 32, seed=1, epoch=2)
    assert first == training_batches(LENGTHS, 32, seed=1, epoch=2)
    assert first != training_batches(LENGTHS, 32, seed=1, epoch=3)
    assert first != training_batches(LENGTHS, 32, seed=2, epoch=2)
    longest = [max(LENGTHS[i] for i in batch) for batch in first]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_evaluation_takes_the_longest_first() -> None:
    longest = [max(LENGTHS[i] for i in batch) for batch in evaluation_batches(LENGTHS, 32)]
    assert longest == sorted(longest, reverse=True) and longest[0] == max(LENGTHS)


def test_budget_batches() -> None:
    lengths = [5, 9, 2, 9, 4, 30, 1]
    batches = budget_batches(lengths, budget=20)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert batches[0] == [5], "what exceeds the budget alone makes its own batch, and first"
    for batch in batches[1:]:
        assert len(batch) * max(lengths[i] for i in batch) <= 20
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(lengths, reverse=True)
    assert len(batches) == 3, "[30] [9 9] [5 4 2 1]: no batch could take another"
