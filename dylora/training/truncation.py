"""A trained adapter cut to its lower ranks in other ways than its own, without training again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dylora.methods import METHODS
from dylora.rank import at_rank, rank_state
from dylora.suite.config import Config, Truncation
from dylora.svd import Moments, kept_adapter, recorded_moments, sort_components
from dylora.training.batching import training_batches
from dylora.training.step import Objective

MOMENT_BATCHES = 24  # of the training data, for the moments of inputs and gradients


def truncated(
    config: Config, model: nn.Module, objective: Objective, device: torch.device
) -> Iterator[tuple[Truncation, list[int]]]:
    """Each of `evaluate.truncations` in turn, in force until the next; and the ranks it changes.

    At max_rank all truncations are the trained adapter itself.
    """
    wanted = config.evaluate.truncations
    every = config.evaluate.ranks or range(1, config.method.max_rank)
    below = [rank for rank in every if rank < config.method.max_rank]
    if not below:
        return
    moments: dict[str, Moments] = {}
    if {Truncation.svd_input, Truncation.svd_kfac} & {*wanted}:
        moments = collected_moments(model, objective, config.train.batch_size, config.seed, device)
    for truncation in wanted:
        with _truncated_by(truncation, model, moments):
            yield truncation, below


@contextmanager
def _truncated_by(
    truncation: Truncation, model: nn.Module, moments: dict[str, Moments]
) -> Iterator[None]:
    state = rank_state(model)
    # Sorted components are cut at one scaling, that of max_rank; rescaled ones at alpha/b.
    rule = "dylora" if truncation == Truncation.rescaled else "lora"
    method, state.method = state.method, METHODS[rule]
    try:
        with kept_adapter(model):
            if truncation == Truncation.svd:
                sort_components(model)
            elif truncation != Truncation.rescaled:
                sort_components(model, moments, gradients=truncation == Truncation.svd_kfac)
            yield
    finally:
        state.method = method


def collected_moments(
    model: nn.Module, objective: Objective, batch_size: int, seed: int, device: torch.device
) -> dict[str, Moments]:
    """Moments of each adapted layer at max_rank over a few batches of the training data.

    Without dropout. The gradients are those of the loss itself (the empirical Fisher matrix).
    """
    lengths = [example["length"] for example in objective.examples]
    batches = training_batches(lengths, batch_size, seed, epoch=0)[:MOMENT_BATCHES]
    model.eval()
    with at_rank(model, rank_state(model).max_rank), recorded_moments(model) as moments:
        for indices in batches:
            batch = objective.collate([objective.examples[i] for i in indices])
            objective.loss(model, {k: v.to(device) for k, v in batch.items()}).backward()
    model.zero_grad()
    return moments
