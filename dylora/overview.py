"""An adapted model at a glance: its adapter, what that stores, what it scores at each rank."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dylora.adapted import low_rank_parts
from dylora.errors import UserError
from dylora.rank import at_rank, rank_state

BAR = 40  # characters of the longest bar
ScoreOf = Callable[[Tensor, Tensor], float]  # logits and labels of all examples -> a score


@dataclass(frozen=True)
class Overview:
    """What `dylora.summary` says of a model; print it."""

    method: str
    max_rank: int
    alpha: float
    layers: list[str]  # adapted, a fused layer's parts each
    trained: int  # parameters, those of the head included
    total: int
    costs: dict[str, int]  # adapted layer -> parameters of one rank of it
    sizes: dict[int, int]  # rank -> parameters of the adapter alone, cut to this rank

    def __str__(self) -> str:
        share = 100 * self.trained / self.total
        lines = [
            f"{self.method}, max_rank {self.max_rank}, alpha {self.alpha:g}: "
            f"{len(self.layers)} layers, from {self.layers[0]} to {self.layers[-1]}",
            f"{self.trained:,} of {self.total:,} parameters trained ({share:.2f}%)",
            "rank  parameters of the adapter",
            *(f"{rank:>4}  {size:>12,}" for rank, size in self.sizes.items()),
        ]
        return "\n".join(lines)


def summary(model: nn.Module) -> Overview:
    """The method, layers and sizes of an adapted model. Raises UserError without an adapter."""
    state, parts = rank_state(model), low_rank_parts(model)
    costs: Counter[str] = Counter()
    for part in parts.values():
        costs[part.name] += part.lora_A.shape[1] + part.lora_B.shape[0]
    return Overview(
        method=state.method.label,
        max_rank=state.max_rank,
        alpha=state.alpha,
        layers=list(parts),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        total=sum(p.numel() for p in model.parameters()),
        costs=dict(costs),
        sizes={rank: rank * costs.total() for rank in range(1, state.max_rank + 1)},
    )


class RankScores(dict[int, float]):
    """A score for each rank; printed as a table with bars from the worst to the best."""

    def __str__(self) -> str:
        low, high = min(self.values()), max(self.values())
        width = BAR / (high - low) if high > low else 0.0
        lines = [
            f"{rank:>4}  {score:>10.4f}  {'#' * round((score - low) * width)}".rstrip()
            for rank, score in self.items()
        ]
        return "\n".join(["rank       score", *lines])


def evaluate_ranks(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    metric: ScoreOf,
    ranks: Sequence[int] | None = None,
) -> RankScores:
    """Score a model at every rank, or at `ranks`, without gradients and in evaluation mode.

    Each of `batches`, such as a DataLoader's, has the model's inputs and `labels`; the model's
    output has `logits`. `metric` takes the logits of all examples and their labels, both with the
    examples first, on the CPU. Rank and mode are as before afterwards. Raises UserError for a
    model without an adapter, a rank that it has not, and where there is nothing to score.
    """
    state = rank_state(model)
    device, training = next(model.parameters()).device, model.training
    kept = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]
    if not kept or "labels" not in kept[0]:
        raise UserError("evaluate_ranks needs batches with the model's inputs and `labels`")
    labels = torch.cat([batch["labels"].cpu() for batch in kept])
    scores = RankScores()
    model.eval()
    try:
        for rank in ranks or range(1, state.max_rank + 1):
            with at_rank(model, rank), torch.no_grad():
                logits = torch.cat([model(**batch).logits.cpu() for batch in kept])
            scores[rank] = float(metric(logits, labels))
    finally:
        model.train(training)
    return scores
