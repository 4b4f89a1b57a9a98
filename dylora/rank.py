"""The rank in force: who draws it, who holds it, and how a block of code changes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from dylora.errors import UserError
from dylora.methods import Method

Rank = int | Tensor | None  # one for all, a LongTensor (batch,), or None for the bare backbone


@dataclass
class RankState:
    """The rank in force in one model, shared by all of its low-rank modules."""

    method: Method
    max_rank: int
    alpha: float
    rank: Rank = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.max_rank < 1:
            raise UserError(f"max_rank is {self.max_rank}; it must be at least 1")
        self.set(self.max_rank)

    def set(self, rank: Rank, device: torch.device | None = None) -> None:
        """Put `rank` in force; raises UserError outside [1, max_rank].

        Ranks of single examples are checked where they are and then moved to `device`, so that
        ranks drawn on the CPU do not make the CPU wait for a GPU.
        """
        if isinstance(rank, Tensor):
            self._check(int(rank.min()), int(rank.max()))
            rank = rank.to(device)
        elif rank is not None:
            self._check(rank, rank)
        self.rank = rank

    def weights(self, like: Tensor) -> float | Tensor:
        """The weights in use at the rank in force, on the device and in the dtype of `like`.

        At an int rank (rank,), or one number if they are equal, which saves a tensor. With a rank
        per example (batch, max_rank), zero beyond each example's.
        """
        if isinstance(self.rank, Tensor):
            return self._table(like)[self.rank.to(like.device)]
        assert self.rank is not None
        row = self.method.weights(self.rank, self.max_rank, self.alpha)
        return row[0] if len(set(row)) == 1 else self._table(like)[self.rank, : self.rank]

    def training_weights(self, like: Tensor) -> Tensor | None:
        """The weights (max_rank,) of a method with a rule of its own for training; else None."""
        return None if self.method.training_rule is None else self._table(like)[0]

    def _table(self, like: Tensor) -> Tensor:
        return _table(self.method, self.max_rank, self.alpha, like.device, like.dtype)

    def _check(self, low: int, high: int) -> None:
        if low < 1 or high > self.max_rank:
            wrong = low if low < 1 else high
            raise UserError(f"rank {wrong} is outside 1..{self.max_rank}, what the adapter has")


@lru_cache(maxsize=64)
def _table(
    method: Method, max_rank: int, alpha: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Weights of every rank, (max_rank + 1, max_rank), zero-padded; row 0: those of training.

    Kept on the device, so that no step copies them there.
    """
    rows = [[0.0] * max_rank]
    if method.training_rule is not None:
        rows = [method.training_rule(max_rank, alpha)]
    for rank in range(1, max_rank + 1):
        rows.append(method.weights(rank, max_rank, alpha) + [0.0] * (max_rank - rank))
    with torch.inference_mode(False):  # training must be able to use what inference has made
        table = torch.tensor(rows, dtype=torch.float64, device="cpu")
        return table.to(dtype).to(device)


def rank_state(model: nn.Module) -> RankState:
    """The state shared by the adapters of `model`; raises UserError if it has none."""
    for module in model.modules():
        state = getattr(module, "rank_state", None)
        if isinstance(state, RankState):
            return state
    raise UserError("this model has no adapter: call dylora.adapt(model, ...) first")


def has_adapter(model: nn.Module) -> bool:
    return any(isinstance(getattr(m, "rank_state", None), RankState) for m in model.modules())


def set_rank(model: nn.Module, rank: Rank) -> None:
    """Use `rank` from now on; raises UserError outside [1, max_rank]."""
    rank_state(model).set(rank, next(model.parameters()).device)


@contextmanager
def at_rank(model: nn.Module, rank: Rank) -> Iterator[nn.Module]:
    """Use `rank` inside the block and the former one after it, also when the block raises.

    `rank` is an int for all examples, a LongTensor (batch,) with one for each, or None for the
    bare backbone, which a model without adapters is already. Raises UserError outside 1..max_rank.
    """
    if rank is None and not has_adapter(model):
        yield model
        return
    state = rank_state(model)
    before = state.rank
    state.set(rank, next(model.parameters()).device)
    try:
        yield model
    finally:
        state.rank = before


class RankSampler:
    """Draws the rank of an optimizer step, b ~ p_B over [min_rank, max_rank] (paper, section 3).

    The draw depends on the seed and the step alone: there is no state to save, every worker gets
    the same rank, and a resumed run continues as if it had never stopped.

    `distribution` is "uniform" or "geometric", p_B(b) proportional to (1 - p)^(b - min_rank) with
    the paper's p = 0.15. Raises UserError on an empty range or an unknown distribution.
    """

    def __init__(
        self,
        max_rank: int,
        min_rank: int = 1,
        distribution: str = "uniform",
        geometric_p: float = 0.15,
        seed: int = 0,
    ) -> None:
        if not 1 <= min_rank <= max_rank:
            raise UserError(f"min_rank {min_rank} must be at least 1 and at most {max_rank}")
        self.ranks = np.arange(min_rank, max_rank + 1)
        if distribution == "uniform":
            mass: np.ndarray = np.ones(len(self.ranks))
        elif distribution == "geometric" and 0 < geometric_p < 1:
            mass = (1 - geometric_p) ** (self.ranks - min_rank)
        else:
            raise UserError(
                f"rank_distribution is {distribution!r} with geometric_p {geometric_p}; "
                "use uniform, or geometric with geometric_p between 0 and 1"
            )
        self.probabilities: np.ndarray = mass / mass.sum()
        self.seed = seed

    def __call__(self, step: int) -> int:
        """The rank of optimizer step `step`."""
        return int(self._quantile(self._generator(step).random(1))[0])

    def per_sample(self, step: int, batch_size: int) -> Tensor:
        """One rank for each of `batch_size` examples, LongTensor (batch_size,).

        Stratified: one draw from each of `batch_size` equal slices of p_B, in random order, so
        that a step covers the ranks as evenly as its size allows.
        """
        generator = self._generator(step)
        points = (np.arange(batch_size) + generator.random(batch_size)) / batch_size
        return torch.from_numpy(generator.permutation(self._quantile(points)))

    def _generator(self, step: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.seed, counter=step))

    def _quantile(self, points: np.ndarray) -> np.ndarray:
        # The last edge may be a rounding error below 1.
        index = np.searchsorted(np.cumsum(self.probabilities), points, side="right")
        return self.ranks[np.minimum(index, len(self.ranks) - 1)]
