"""The rank of each optimizer step, drawn."""

import numpy as np
import torch
from torch import Tensor

from dylora.errors import UserError


class RankSampler:
    """Draws the rank of an optimizer step, b ~ p_B over [min_rank, max_rank] (paper, section 3).

    The draw depends on the seed and the step alone: there is no state to save, every worker gets
    the same rank, and a resumed run continues as if it had never stopped.

    `distribution` is "uniform"; "geometric", p_B(b) proportional to (1 - p)^(b - min_rank) with the
    paper's p = 0.15; or "sandwich" (arXiv 1903.05134): one half the lowest rank, a quarter the
    highest, the rest evenly those between. Raises UserError on an empty range or an unknown
    distribution.
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
        elif distribution == "sandwich":
            between = len(self.ranks) - 2
            mass = np.array([2.0, *[1 / between] * between, 1.0] if between > 0 else [1.0, 1.0])
            mass = mass[: len(self.ranks)]
        else:
            raise UserError(
                f"rank_distribution is {distribution!r} with geometric_p {geometric_p}; "
                "use uniform, sandwich, or geometric with geometric_p between 0 and 1"
            )
        self.probabilities: np.ndarray = mass / mass.sum()
        self.distribution, self.seed = distribution, seed

    def __repr__(self) -> str:
        ranks = f"{self.ranks[0]}..{self.ranks[-1]}"
        return f"RankSampler(ranks {ranks}, {self.distribution}, seed={self.seed})"

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
