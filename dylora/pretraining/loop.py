"""The loop of pretraining, on one device; that of the experiments is `dylora.training.loop`.

The two share signals and whole files, and no more: here all weights learn, from random blocks
instead of epochs over examples, to the end of a clock as well as of steps, which the learning rate
follows, and nothing of ranks, accumulation, several processes or selection of an epoch applies.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from dylora.files import whole_file
from dylora.pretraining.language_model import (
    Batches,
    PretrainConfig,
    autocast,
    kept_generators,
    language_loss,
    validation_loss,
)
from dylora.suite.config import Precision
from dylora.suite.signals import Interrupted, stop_requests

CHECKPOINT_SECONDS = 120.0
SAVED = ("model", "optimizer", "scaler")  # of the state, beside the progress
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


@dataclass
class PretrainProgress:
    """How far pretraining is, and its loss on the validation tokens."""

    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float, float]] = field(default_factory=list)  # step, seconds, loss


def _optimizer(model: PreTrainedModel, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, biases and norms do not."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)


def _done(progress: PretrainProgress, config: PretrainConfig) -> float:
    """The part of the training that is done, by steps or by the clock, whichever ends it first."""
    by_steps = progress.step / config.steps if config.steps else 0.0
    by_clock = progress.seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(by_steps, by_clock)


def learning_rate(done: float, config: PretrainConfig) -> float:
    """Linear warm-up, then a cosine down to a tenth of `learning_rate`; `done` is from 0 to 1."""
    if done < config.warmup:
        return config.learning_rate * max(done / config.warmup, 0.01)
    cosine = 0.5 * (1 + math.cos(math.pi * (done - config.warmup) / (1 - config.warmup)))
    return config.learning_rate * (0.1 + 0.9 * cosine)


@dataclass
class TrainingState:
    """All that the next step depends on."""

    model: PreTrainedModel
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    progress: PretrainProgress

    def save(self, path: Path) -> None:
        """Write it to `path`, whole or not at all."""
        parts = {name: getattr(self, name).state_dict() for name in SAVED}
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            torch.save(parts | {"progress": asdict(self.progress)}, file)

    def load(self, path: Path) -> None:
        """Put back what `save` wrote."""
        saved = torch.load(path, map_location=self.model.device, weights_only=True)
        for name in SAVED:
            getattr(self, name).load_state_dict(saved[name])
        self.progress = PretrainProgress(**saved["progress"])

    def step(self, inputs: Tensor, labels: Tensor, config: PretrainConfig, rate: float) -> float:
        """One optimizer step on a batch; its loss."""
        device = self.model.device
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with autocast(config, device):
            loss, _ = language_loss(self.model, inputs.to(device), labels.to(device))
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.progress.step += 1
        return loss.item()


def train_language_model(
    model: PreTrainedModel,
    batches: Batches,
    validation: Batches,
    checkpoint: Path | None = None,
    title: str = "pretraining",
) -> PretrainProgress:
    """Train `model` in place until `steps` or `minutes` are over, going on from `checkpoint`.

    Continued after a stop it gives what an uninterrupted training gives (with `steps`; a clock
    cannot). Raises Interrupted, with the checkpoint written, on SIGINT or SIGTERM.
    """
    config = batches.config
    scaler = torch.amp.GradScaler(model.device.type, enabled=config.precision == Precision.fp16)
    state = TrainingState(model, _optimizer(model, config), scaler, PretrainProgress())
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
    progress, saved = state.progress, time.monotonic()
    bar = tqdm(total=1.0, desc=title, bar_format=BAR, leave=False, mininterval=0.5, disable=None)
    # Without a checkpoint there is nothing to save, and signals are only seen in the main thread.
    requests: AbstractContextManager[list[int]] = nullcontext([])
    if checkpoint is not None:
        requests = stop_requests()
    model.train()
    with kept_generators(), requests as stop, bar:
        while (done := _done(progress, config)) < 1:
            started = time.monotonic()
            torch.manual_seed(config.seed * 1_000_003 + progress.step)  # of this step's dropout
            inputs, labels = batches(progress.step, config.batch_size)
            loss = state.step(inputs, labels, config, learning_rate(done, config))
            if progress.step % config.eval_steps == 0:
                _validate(model, validation, progress)
            progress.seconds += time.monotonic() - started
            _show(bar, progress, loss, config)
            if checkpoint is not None and (stop or time.monotonic() - saved > CHECKPOINT_SECONDS):
                state.save(checkpoint)
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"stopped after step {progress.step}; run again to go on")
        if not progress.losses or progress.losses[-1][0] != progress.step:
            _validate(model, validation, progress)
        if checkpoint is not None:
            state.save(checkpoint)
    return progress


def _validate(model: PreTrainedModel, validation: Batches, progress: PretrainProgress) -> None:
    loss = validation_loss(model, validation)
    progress.losses.append((progress.step, round(progress.seconds, 1), loss))


def _show(bar: tqdm, progress: PretrainProgress, loss: float, config: PretrainConfig) -> None:
    rate = progress.step * config.batch_size * config.context / max(progress.seconds, 1e-9)
    shown = {"step": progress.step, "loss": f"{loss:.3f}", "tokens/s": f"{rate:.0f}"}
    if progress.losses:
        shown["validation"] = f"{progress.losses[-1][2]:.3f}"
    bar.set_postfix(shown, refresh=False)
    bar.update(min(_done(progress, config), 1.0) - bar.n)
