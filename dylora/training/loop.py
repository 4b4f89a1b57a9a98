"""The training loop of every run, whatever its task and method; pretraining has its own."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import get_linear_schedule_with_warmup

from dylora.adapter import (
    adapter_state,
    hold_untrained_rows,
    load_adapter_state,
    read_adapter,
    save_adapter,
)
from dylora.files import ADAPTER
from dylora.methods import METHODS
from dylora.metrics import metric_named
from dylora.rank import Rank, RankSampler, set_rank
from dylora.suite.config import MethodConfig, RankLoss, RankScope, TrainConfig, default_ranks
from dylora.suite.signals import Interrupted, stop_requests
from dylora.training.batching import training_batches
from dylora.training.checkpoint import load_checkpoint, save_checkpoint
from dylora.training.divergence import diverged
from dylora.training.workers import is_main, own_share

CHECKPOINT_SECONDS = 300  # at most so much work is lost when a process is killed outright
AGREE_STEPS = 10  # several processes ask each other so often whether to stop
LARGEST_RATE = 3e37  # AdamW divides it by 1 - beta1, in float32
HISTORY_POINTS = 2000  # steps kept in the record; longer runs keep every k-th

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


@dataclass
class Progress:
    """How far training is; with the tensors, all of the state of a run."""

    step: int = 0  # optimizer steps done
    best: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0  # of training, the scores after each epoch included
    steps: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)


def train(
    model: nn.Module,
    objective: Objective,
    config: TrainConfig,
    method: MethodConfig,
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    track: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Train `model` in place; the weights of the best epoch are in it at the end.

    They are also in `folder`/adapter.safetensors. An unfinished run found in `folder`/checkpoint
    goes on exactly where it stopped. `track` is called at the start and whenever the history in the
    progress has grown. Several processes, which must share `folder`, divide each batch and take the
    steps that one would. Raises UserError when the loss is no longer a number, and Interrupted,
    with a checkpoint written, when the process is asked to stop.
    """
    plan = Plan.of(len(objective.examples), config)
    adamw = _optimizer(model, config)
    scheduler = get_linear_schedule_with_warmup(
        adamw, _warmup_steps(config, plan.total_steps), plan.total_steps
    )
    model, optimizer = accelerator.prepare(model, adamw)
    parts = (accelerator.unwrap_model(model), optimizer, scheduler, accelerator.scaler)
    saved = load_checkpoint(folder / "checkpoint", *parts)
    progress = Progress(**saved) if saved else Progress()
    track(progress)
    sampler = RankSampler(
        method.max_rank, method.min_rank, method.rank_distribution, method.geometric_p, seed
    )
    tools = (accelerator, optimizer, scheduler)
    step = _Step(model, objective, config, method, sampler, *tools, folder)

    last_save = time.perf_counter()

    def save() -> None:
        nonlocal last_save
        now = time.perf_counter()
        progress.seconds, last_save = progress.seconds + now - last_save, now
        save_checkpoint(folder / "checkpoint", *parts, asdict(progress))

    with stop_requests() as stop, _bar(plan, progress) as bar:
        while progress.step < plan.total_steps and not _out_of_patience(progress, config):
            started = time.perf_counter()
            for window in plan.remaining(objective, config, seed, progress):
                logged = plan.logs(progress.step)
                loss, rank = step(window, progress.step, logged)
                if logged:
                    _log(progress, loss, rank, scheduler.get_last_lr()[0], bar)
                    track(progress)
                progress.step += 1
                bar.update()
                overdue = time.perf_counter() - last_save > CHECKPOINT_SECONDS
                stopping, saving = _agreed(bool(stop), overdue, progress.step, accelerator)
                if stopping or saving:
                    save()
                if stopping:
                    raise Interrupted(f"stopped after step {progress.step}; run again to go on")
            trained = time.perf_counter()
            _finish_epoch(progress, parts[0], objective, config, method, folder)
            track(progress)
            progress.epochs[-1]["train_seconds"] = round(trained - started, 3)
            progress.epochs[-1]["evaluate_seconds"] = round(time.perf_counter() - trained, 3)
            save()
            if _agreed(bool(stop), False, 0, accelerator)[0]:
                raise Interrupted(f"stopped after epoch {len(progress.epochs)}; run again to go on")
    accelerator.wait_for_everyone()  # the main process has written the adapter
    if config.select != "last":
        tensors, _ = read_adapter(folder / ADAPTER)
        load_adapter_state(parts[0], tensors, str(folder / ADAPTER))
    return progress


@dataclass(frozen=True)
class Plan:
    """How many optimizer steps there are and which batches each takes."""

    steps_per_epoch: int
    total_steps: int
    log_every: int

    @classmethod
    def of(cls, examples: int, config: TrainConfig) -> "Plan":
        per_epoch = math.ceil(math.ceil(examples / config.batch_size) / config.accumulation)
        total = per_epoch * config.epochs
        if config.max_steps is not None:
            total = min(total, config.max_steps)
        return cls(per_epoch, total, math.ceil(total / HISTORY_POINTS))

    def logs(self, step: int) -> bool:
        """Whether the history has this step."""
        return step % self.log_every == 0 or step + 1 == self.total_steps

    def remaining(
        self, objective: Objective, config: TrainConfig, seed: int, progress: Progress
    ) -> list[list[list[int]]]:
        """What is left of the current epoch: per optimizer step its micro-batches of indices."""
        epoch = len(progress.epochs)
        lengths = [example["length"] for example in objective.examples]
        batches = training_batches(lengths, config.batch_size, seed, epoch)
        k = config.accumulation
        windows = [batches[i : i + k] for i in range(0, len(batches), k)]
        begin = epoch * self.steps_per_epoch
        return windows[progress.step - begin : self.total_steps - begin]


@dataclass(frozen=True)
class _Step:
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
            batch = {k: v.to(self.accelerator.device) for k, v in batch.items()}
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

    def _draw_ranks(self, step: int, number: int, size: int) -> Sequence[Rank]:
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

    def _use(self, rank: Rank) -> float:
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


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what is trained; no weight decay on biases and norms, as in the papers' code."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, eps=config.adam_eps)


def _warmup_steps(config: TrainConfig, total_steps: int) -> int:
    if config.warmup_steps is not None:
        return config.warmup_steps
    return math.ceil(config.warmup_ratio * total_steps)


def _bar(plan: Plan, progress: Progress) -> tqdm:
    # disable=None: no bar when the output is not a terminal
    hidden = None if is_main() else True
    return tqdm(total=plan.total_steps, initial=progress.step, desc="train", disable=hidden)


def _agreed(stop: bool, overdue: bool, step: int, accelerator: Accelerator) -> tuple[bool, bool]:
    """Whether any process was asked to stop or thinks a checkpoint overdue.

    All must do the same at the same step, or they would wait for each other for ever. Asking the
    others takes time, so several processes do it every AGREE_STEPS steps only.
    """
    if accelerator.num_processes > 1:
        if step % AGREE_STEPS:
            return False, False
        asked = torch.tensor([stop, overdue], dtype=torch.float32, device=accelerator.device)
        stop, overdue = (accelerator.reduce(asked, "sum") > 0).tolist()
    return stop, overdue


def _log(progress: Progress, loss: float, rank: float, lr: float, bar: tqdm) -> None:
    progress.steps.append({"step": progress.step, "loss": round(loss, 5), "rank": rank, "lr": lr})
    bar.set_postfix(loss=f"{loss:.3f}", rank=f"{rank:g}", refresh=False)


def ranks_after_epoch(config: TrainConfig, method: MethodConfig) -> list[int | None]:
    """The ranks scored after each epoch; [None] for a method without adapters."""
    if not METHODS[method.name].has_ranks:
        return [None]
    if config.eval_ranks is not None:
        return list(config.eval_ranks)
    top_only = config.select in ("max", "last")
    return [method.max_rank] if top_only else list(default_ranks(method.max_rank))


def _finish_epoch(
    progress: Progress,
    model: nn.Module,
    objective: Objective,
    config: TrainConfig,
    method: MethodConfig,
    folder: Path,
) -> None:
    """Score the epoch and keep its weights if they are the ones to select.

    Raises UserError if weights or scores are no finite numbers any more.
    """
    last = progress.steps[-1]
    facts = (folder, int(last["step"]), last["rank"], last["lr"])
    if not all(tensor.isfinite().all() for tensor in adapter_state(model).values()):
        raise diverged("the weights are no finite numbers", model, [], *facts)
    scores = objective.evaluate(model, ranks_after_epoch(config, method))
    selected = _selected(scores, objective.select_metric, config, method)
    for rank, by_metric in scores.items():
        for name, value in by_metric.items():
            if not math.isfinite(value):
                raise diverged(f"{name} of rank {rank or 0} is {value}", model, [], *facts)
    lower = metric_named(objective.select_metric).lower_is_better
    better = progress.best is None or (
        selected < progress.best if lower else selected > progress.best
    )
    epoch = len(progress.epochs) + 1
    if better or config.select == "last":
        progress.best, progress.best_epoch = selected, epoch
        if is_main():
            save_adapter(model, folder / ADAPTER)
    named = {str(rank or 0): values for rank, values in scores.items()}
    entry = {"epoch": epoch, "step": progress.step, "scores": named, "selected": selected}
    progress.epochs.append(entry)


def _selected(scores: Scores, metric: str, config: TrainConfig, method: MethodConfig) -> float:
    """The number that decides which epoch is best: the mean over the ranks, or one rank's."""
    values = {rank: by_metric[metric] for rank, by_metric in scores.items()}
    if config.select in ("mean", "last") or None in values:
        return sum(values.values()) / len(values)
    return values[method.max_rank if config.select == "max" else int(config.select)]


def _out_of_patience(progress: Progress, config: TrainConfig) -> bool:
    if config.patience is None or progress.best_epoch is None:
        return False
    return len(progress.epochs) - progress.best_epoch >= config.patience
