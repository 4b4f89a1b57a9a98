"""A rank for each layer under a budget of parameters: spent where it helps, without a search.

All ranks of all layers are trained already, so only the choice is left. It is greedy: from rank 1
everywhere, the step that gains most for each parameter comes first.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import nn

from dylora.adapted import low_rank_parts
from dylora.errors import UserError
from dylora.layers import LowRank
from dylora.overview import summary
from dylora.rank import at_rank, rank_state


def allocate(
    model: nn.Module,
    budget: int,
    by: Literal["energy", "validation"] = "energy",
    score: Callable[[], float] | None = None,
) -> dict[str, int]:
    """A rank for each adapted layer, of `budget` parameters at most, for `at_rank` and the exports.

    What a rank of a layer is worth is said by its "energy": how much closer its delta is to that of
    max_rank in the squared Frobenius norm; for an adapter of `sort_by_svd` these are the squares
    of its singular values. By "validation" it is what `score()` returns, higher is better, with
    this layer at this rank and all others at max_rank: layers x (max_rank - 1) + 1 calls. `score`
    runs the model on data that is not that of the final score, in evaluation mode and without
    gradients.

    A step that gains nothing is not bought, so that some of the budget may be left. The parameters
    of the adapter at one rank are `dylora.summary(model).sizes`. Raises UserError for a budget
    below one rank of each layer, and for a `score` too many or too few.
    """
    if by not in ("energy", "validation"):
        raise UserError(f'by is {by!r}; it is "energy" or "validation"')
    if (score is None) == (by == "validation"):
        needs = "needs score=, a function" if score is None else "takes no score="
        raise UserError(f'by="{by}" {needs}')
    state = rank_state(model)
    layers: dict[str, list[LowRank]] = {}
    for part in low_rank_parts(model).values():
        layers.setdefault(part.name, []).append(part)
    costs = summary(model).costs
    if budget < sum(costs.values()):
        raise UserError(
            f"budget is {budget:,} parameters; one rank of each of the {len(costs)} layers takes "
            f"{sum(costs.values()):,}"
        )
    if score is None:
        worth = [_energy(parts, state.max_rank) for parts in layers.values()]
    else:
        worth = _measured(model, list(layers), state.max_rank, score)
    ranks = _greedy(np.array(worth), np.array([costs[layer] for layer in layers]), budget)
    return dict(zip(layers, ranks.tolist(), strict=True))


@torch.no_grad()
def _energy(parts: list[LowRank], max_rank: int) -> list[float]:
    """Minus the squared distance of the delta at each rank from that at max_rank.

    With u the difference of the weights it is the norm of B diag(u) A, u' (B'B * AA') u: the delta
    itself is never made.
    """
    worth = [0.0] * max_rank
    for part in parts:
        A, B, state = part.lora_A.double(), part.lora_B.double(), part.rank_state
        products = (B.T @ B) * (A @ A.T)
        full = torch.tensor(state.method.weights(max_rank, max_rank, state.alpha)).to(A)
        for rank in range(1, max_rank):
            left = full.clone()
            left[:rank] -= torch.tensor(state.method.weights(rank, max_rank, state.alpha)).to(A)
            worth[rank - 1] -= (left @ products @ left).item()
    return worth


def _measured(
    model: nn.Module, layers: list[str], max_rank: int, score: Callable[[], float]
) -> list[list[float]]:
    """The score with one layer at each rank and all others at max_rank."""
    highest = dict.fromkeys(layers, max_rank)

    def scored(ranks: dict[str, int]) -> float:
        with at_rank(model, ranks):
            return float(score())

    full = scored(highest)
    return [
        [*(scored({**highest, layer: rank}) for rank in range(1, max_rank)), full]
        for layer in layers
    ]


def _greedy(worth: np.ndarray, costs: np.ndarray, budget: int) -> np.ndarray:
    """The ranks (layers,) for the worth of each layer's ranks (layers, max_rank).

    A step may be of several ranks, so that one that gains nothing by itself does not hide a higher
    one that does. Where a large step leaves no room, the best single rank can be worth more.
    """
    layers, max_rank = worth.shape
    uniform = min(budget // costs.sum(), max_rank)
    candidates = [np.full(layers, rank) for rank in range(1, uniform + 1)]
    ranks, left = np.ones(layers, dtype=int), budget - costs.sum()
    while True:
        gain = worth - np.take_along_axis(worth, ranks[:, None] - 1, axis=1)
        extra = (np.arange(1, max_rank + 1) - ranks[:, None]) * costs[:, None]
        fits = (extra > 0) & (extra <= left) & (gain > 0)
        if not fits.any():
            break
        slope = np.divide(gain, extra, out=np.full_like(worth, -np.inf), where=fits)
        layer, index = np.unravel_index(slope.argmax(), slope.shape)
        left -= extra[layer, index]
        ranks[layer] = index + 1
    return max(
        [ranks, *candidates], key=lambda r: np.take_along_axis(worth, r[:, None] - 1, 1).sum()
    )
