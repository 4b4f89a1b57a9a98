"""A tiny model in the Hugging Face Trainer, for the tests of the integrations."""

from pathlib import Path
from typing import Any

import torch
from tiny import inputs, roberta
from torch import nn
from transformers import (
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import dylora
from dylora.adapter import adapter_state
from dylora.integrations import DyLoRACallback
from dylora.rank import rank_state

ROWS, MAX_RANK, SEED = 24, 4, 7
TOKENS = inputs(ROWS, 6)
LABELS = (TOKENS[:, 0] > 25).long()
ROW = [{"input_ids": TOKENS[i], "labels": int(LABELS[i])} for i in range(ROWS)]
SAMPLER = dylora.RankSampler(MAX_RANK, seed=SEED)


def adapted(**options: Any) -> nn.Module:
    return dylora.adapt(roberta(), ["query", "value"], max_rank=MAX_RANK, **options)


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 12,
        "learning_rate": 1e-2,
        "optim": "adamw_torch",  # not the fused one: it rounds differently
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **changes,
    }


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def trainer(
    folder: Path,
    model: nn.Module | None = None,
    kind: type[Trainer] = Trainer,
    callbacks: Any = (),
    strict_freeze: bool = False,
    per_example: bool = False,
    data: Any = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> Trainer:
    model = adapted() if model is None else model
    # RoBERTa's loss is a micro-batch's mean, which the Trainer would take for a share of the whole.
    model.accepts_loss_kwargs = False
    return kind(
        model=model,
        args=TrainingArguments(**arguments(folder, **changes)),
        train_dataset=ROW if data is None else data,
        eval_dataset=ROW,
        compute_metrics=accuracy,
        callbacks=[DyLoRACallback(SAMPLER, strict_freeze, per_example), *callbacks],
        **(options or {}),
    )


def watch(model: nn.Module) -> list[tuple[bool, Any]]:
    """Of every forward pass from now on: whether it trains, and the rank in force."""
    seen: list[tuple[bool, Any]] = []
    model.register_forward_pre_hook(
        lambda module, _: seen.append((module.training, rank_state(module).rank))
    )
    return seen


class Steps(TrainerCallback):
    """Keeps the adapter as it was after each optimizer step."""

    def __init__(self) -> None:
        self.adapters: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tensors = adapter_state(kwargs["model"])
        self.adapters[state.global_step] = {n: t.clone() for n, t in tensors.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
