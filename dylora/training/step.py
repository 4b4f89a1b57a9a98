"""What the loop knows of a task, and one optimizer step of it."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dylora.adapted import hold_untrained_rows
from dylora.methods import METHODS
from dylora.rank import set_rank
from dylora.sampler import RankSampler
from dylora.suite.config import MethodConfig, RankLoss, RankScope, TrainConfig
from dylora.training.divergence import diverged
from dylora.training.workers import own_share

LARGEST_RATE = 3e37  # AdamW divides it by 1 - beta1, in float32

Example = dict[str, Any]
Batch = dict[str, Tensor]
Scores = dict[int | None, dict[str, float]]  # rank -> metric -> value
Results = dict[int | None, dict[str, float | None]]  # the same; None: cannot be computed here


@dataclass(frozen=True)
class Objective:
    """All that the loop knows of a task."""

    examples: Sequence[Example]  # to train on, each with its "length" in tokens
    collate: Callable[[Sequence[Example]], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]  # mean over the batch, a scalar
    evaluate: Callable[[nn.Module, Sequence[int | None]], Scores]  # on the validation data
    select_metric: str  # a name that `evaluate` gives, one of dylora.metrics.METRICS
    count: Callable[[Example], int] = lambda example: 1  # its weight in `loss`: 1, or its tokens


@dataclass(frozen=True)
class OptimizerStep:
    """One optimizer step over the micro-batches of an accumulation window.

    Each process takes its share of each micro-batch. Losses are weighted by what they are means of,
    so that neither accumulation nor the number of processes changes the step.
    """

    model: nn.Module
    objective: Objective
    config: TrainConfig
    method: MethodConfig
    sampler: RankSampler
    accelerator: Accelerator
    optimizer: Any
    scheduler: Any
    folder: Path

    def __call__(self, window: list[list[int]], step: int, watched: bool) -> tuple[float, float]:
        """Take the step; the window's mean loss, nan if it is not looked at, and its (mean) rank.

        On a GPU, and among processes, looking takes time and is done if `watched`; on a CPU always.
        Raises UserError, before the weights change, if the step is not made of finite numbers.
        """
        self.model.train()
        everything = sum(self._count(indices) for indices in window)
        total, ranks, batches = torch.zeros((), device=self.accelerator.device), [], []
        for number, indices in enumerate(window):
            drawn = self._draw_ranks(step, number, len(indices))
            own = list(own_share(indices))
            # Gradients are averaged over the processes, hence the factor.
            weight = self.accelerator.num_processes * self._count(own) / everything / len(drawn)
            # A process without a share takes part with weight 0: the others wait for it.
            batch = self.objective.collate([self.objective.examples[i] for i in own or indices[:1]])
            batch = {k: v.to(total.device, non_blocking=True) for k, v in batch.items()}
            batches.append(batch)
            for turn, rank in enumerate(drawn, start=1):
                ranks.append(self._use(rank))
                last = number == len(window) - 1 and turn == len(drawn)
                with nullcontext() if last else self.accelerator.no_sync(self.model):
                    loss = self.objective.loss(self.model, batch) * weight
                    self.accelerator.backward(loss)
                total += loss.detach()
        mean_loss, mean_rank, norm = math.nan, sum(ranks) / len(ranks), self._clip()
        if watched or (total.device.type == "cpu" and self.accelerator.num_processes == 1):
            mean_loss = self.accelerator.reduce(total, "mean").item()
            rate = self.scheduler.get_last_lr()[0]
            if fault := self._fault(mean_loss, norm, rate):
                model = self.accelerator.unwrap_model(self.model)
                raise diverged(fault, model, batches, self.folder, step, mean_rank, rate)
        self._update()
        return mean_loss, mean_rank

    def _fault(self, loss: float, norm: Tensor | None, rate: float) -> str | None:
        """What of the step is no finite number; None if all is well."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        scaled = self.accelerator.mixed_precision == "fp16"  # whose scaler leaves such a step out
        if norm is not None and not norm.isfinite() and not scaled:
            return f"the norm of the gradients is {norm.item()}"  # clipped by it they are all zero
        return "the step is no float32" if rate > LARGEST_RATE else None

    def _count(self, indices: Sequence[int]) -> int:
        return sum(self.objective.count(self.objective.examples[i]) for i in indices)

    def _draw_ranks(self, step: int, number: int, size: int) -> Sequence[int | Tensor | None]:
        """The ranks at which this micro-batch's loss is taken; their mean is its loss.

        One rank for the whole window (paper, section 3), stratified ranks for the examples of each
        micro-batch, or every rank (the sum of Table 7, divided by their number so that clipping and
        the rate mean the same). All processes draw the same.
        """
        about = METHODS[self.method.name]
        if not about.draws_ranks:
            return [self.method.max_rank if about.has_ranks else None]
        if self.method.loss == RankLoss.sum:
            return range(self.method.min_rank, self.method.max_rank + 1)
        if self.method.rank_scope == RankScope.sample:
            return [self.sampler.per_sample(step * self.config.accumulation + number, size)]
        return [self.sampler(step)]

    def _use(self, rank: int | Tensor | None) -> float:
        """Put a rank in force; its number for the history, the mean if each example has its own."""
        if rank is None:
            return 0.0
        if isinstance(rank, Tensor):
            set_rank(self.model, rank[list(own_share(range(len(rank)))) or [0]])
            return rank.float().mean().item()
        set_rank(self.model, rank)
        return float(rank)

    def _clip(self) -> Tensor | None:
        """Clip the gradients, where that is asked for; their norm before."""
        if self.config.max_grad_norm <= 0:
            return None
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return self.accelerator.clip_grad_norm_(trained, self.config.max_grad_norm)

    def _update(self) -> None:
        hold = hold_untrained_rows(self.model) if self.method.strict_freeze else nullcontext()
        with hold:
            self.optimizer.step()
        if not self.optimizer.step_was_skipped:  # as fp16's scaler does after an overflow
            self.scheduler.step()
        self.optimizer.zero_grad()
