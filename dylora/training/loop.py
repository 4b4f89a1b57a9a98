"""The training loop of every run, whatever its task and method; pretraining has its own."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from tqdm.auto import tqdm
from transformers import get_linear_schedule_with_warmup

from dylora.adapter import adapter_state, load_adapter_state, read_adapter, save_adapter
from dylora.files import ADAPTER
from dylora.methods import METHODS, Method
from dylora.metrics import metric_named
from dylora.sampler import RankSampler
from dylora.suite.config import MethodConfig, TrainConfig, default_ranks
from dylora.suite.signals import Interrupted, stop_requests
from dylora.training.adalora import AllocatingAdamW
from dylora.training.bars import bar
from dylora.training.batching import training_batches
from dylora.training.checkpoint import load_checkpoint, save_checkpoint
from dylora.training.divergence import diverged
from dylora.training.step import Objective, OptimizerStep, Scores
from dylora.training.workers import is_main

AGREE_STEPS = 10  # several processes ask each other so often whether to stop
HISTORY_POINTS = 2000  # steps kept in the record; longer runs keep every k-th


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
    adamw = _optimizer(model, config, METHODS[method.name])
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
    step = OptimizerStep(model, objective, config, method, sampler, *tools, folder)

    last_save = time.perf_counter()

    def save() -> None:
        nonlocal last_save
        now = time.perf_counter()
        progress.seconds, last_save = progress.seconds + now - last_save, now
        save_checkpoint(folder / "checkpoint", *parts, asdict(progress))

    with stop_requests() as stop, bar(plan.total_steps, "train", initial=progress.step) as shown:
        while len(progress.epochs) < plan.epochs and not _out_of_patience(progress, config):
            started = time.perf_counter()
            for window in plan.remaining(objective, config, seed, progress):
                logged = plan.logs(progress.step)
                loss, rank = step(window, progress.step, logged)
                if logged:
                    _log(progress, loss, rank, scheduler.get_last_lr()[0], shown)
                    track(progress)
                progress.step += 1
                shown.update()
                overdue = time.perf_counter() - last_save > config.checkpoint_seconds
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

    @property
    def epochs(self) -> int:
        """How many are begun; after the last step the last one is still to be scored."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

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


def _optimizer(model: nn.Module, config: TrainConfig, method: Method) -> torch.optim.AdamW:
    """AdamW over what is trained; no weight decay on biases and norms, as in the papers' code."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = partial(AllocatingAdamW, model) if method.allocates else torch.optim.AdamW
    return adamw(groups, lr=config.learning_rate, eps=config.adam_eps)


def _warmup_steps(config: TrainConfig, total_steps: int) -> int:
    if config.warmup_steps is not None:
        return config.warmup_steps
    return math.ceil(config.warmup_ratio * total_steps)


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


def _log(progress: Progress, loss: float, rank: float, lr: float, shown: tqdm) -> None:
    progress.steps.append({"step": progress.step, "loss": round(loss, 5), "rank": rank, "lr": lr})
    shown.set_postfix(loss=f"{loss:.3f}", rank=f"{rank:g}", refresh=False)


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
