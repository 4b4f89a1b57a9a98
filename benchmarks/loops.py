"""An epoch as users get it: this project's loop beside PEFT with transformers' Trainer.

Both compute the same batches, grouped by length: the Trainer's own grouping needs many rows.
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks.peers import Batch, backbone, ours, peft
from dylora.suite.config import MethodConfig, Precision, TrainConfig
from dylora.training.batching import training_batches
from dylora.training.loop import train
from dylora.training.step import Objective, Scores

BATCH, SEED = 32, 1
Examples = Sequence[dict[str, Any]]


def examples(count: int) -> Examples:
    """Random tokens, as long as MRPC's pairs are: 53 on average, 20 to 100."""
    draw = np.random.default_rng(0)
    lengths = draw.normal(53, 14, count).clip(20, 100).astype(int)
    return [
        {"input_ids": draw.integers(5, 30000, n).tolist(), "labels": i % 2, "length": int(n)}
        for i, n in enumerate(lengths)
    ]


def collate(rows: Examples) -> Batch:
    """Padded to the longest."""
    width = max(len(row["input_ids"]) for row in rows)
    ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[number, :length] = torch.tensor(row["input_ids"])
        mask[number, :length] = 1
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def batches_of(rows: Examples) -> list[list[int]]:
    """The batches that this project's loop takes in its first epoch."""
    return training_batches([row["length"] for row in rows], BATCH, seed=SEED, epoch=0)


def padding(rows: Examples) -> float:
    """Tokens that are computed for each real one in an epoch of this project's batches."""
    lengths, batches = [row["length"] for row in rows], batches_of(rows)
    computed = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return computed / sum(lengths)


def epochs(size: str, rows: Examples, device: str) -> dict[str, Callable[[], None]]:
    """An epoch of each, of a fresh copy of its model."""
    models = {
        "PEFT + Trainer": peft(backbone(size, "sdpa")),
        "PEFT + Trainer, eager attention": peft(backbone(size, "eager")),
    }
    ordered = [rows[i] for batch in batches_of(rows) for i in batch]
    found = {"dylora run": our_run(size, rows, device)}
    for name, model in models.items():
        found[name] = lambda model=model: _trainer_epoch(  # type: ignore[misc]
            copy.deepcopy(model), ordered, device
        )
    return found


def our_run(size: str, rows: Examples, device: str) -> Callable[[], None]:
    """An epoch of this project's loop, of a fresh copy of its model."""
    own = ours(backbone(size, "sdpa" if device == "cuda" else "eager"))
    return lambda: _our_epoch(copy.deepcopy(own), rows, device)


def _our_epoch(model: nn.Module, rows: Examples, device: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision="bf16", cpu=device == "cpu")

    def nothing(model: nn.Module, ranks: Sequence[int | None]) -> Scores:
        return {rank: {"accuracy": 0.0} for rank in ranks}

    objective = Objective(
        examples=rows,
        collate=collate,
        loss=lambda model, batch: model(**batch).loss,
        evaluate=nothing,
        select_metric="accuracy",
    )
    config = TrainConfig(epochs=1, batch_size=BATCH, precision=Precision.bf16, select="last")
    with tempfile.TemporaryDirectory() as folder:
        method = MethodConfig(name="dylora")
        train(model, objective, config, method, SEED, Path(folder), accelerator)


def _trainer_epoch(model: nn.Module, rows: Examples, device: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=4e-4,
            bf16=True,
            use_cpu=device == "cpu",
            train_sampling_strategy="sequential",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        made = Trainer(model, arguments, data_collator=collate, train_dataset=rows)
        made.train()
