"""Classification and regression with an encoder: tokens, loss, predictions at every rank."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dylora.files import write_lines
from dylora.metrics import score
from dylora.rank import at_rank
from dylora.suite.config import Config, Kind, TaskConfig
from dylora.tasks.base import Splits
from dylora.training.bars import batch_ranks
from dylora.training.batching import evaluation_batches
from dylora.training.step import Objective, Results, Scores
from dylora.training.workers import from_all, is_main, own_share

SIGNATURE = f"scikit-learn {version('scikit-learn')}, scipy {version('scipy')}"
Example = dict[str, Any]  # input_ids and other tokenizer outputs, label, length
Batch = dict[str, Tensor]


def encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
    """Tokens of each row with its label and length; cut at `max_length` or the model's limit."""
    max_length = min(max_length, tokenizer.model_max_length)
    pair = [list(rows["text_b"])] if "text_b" in rows.column_names else []
    tokens = tokenizer(list(rows["text_a"]), *pair, truncation=True, max_length=max_length)
    names = list(tokens.keys())
    return [
        {**dict(zip(names, values, strict=True)), "label": label, "length": len(values[0])}
        for *values, label in zip(*(tokens[name] for name in names), rows["label"], strict=True)
    ]


def collate(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Right-padded to the longest example: input_ids, attention_mask (batch, length), labels."""
    features = [{k: e[k] for k in e if k not in ("label", "length")} for e in examples]
    batch = tokenizer.pad(features, return_tensors="pt")
    return {**batch, "labels": torch.tensor([e["label"] for e in examples])}


def loss(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the batch; mean squared error if the labels are scores."""
    labels = batch["labels"]
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits.float()
    if labels.is_floating_point():
        return F.mse_loss(logits.squeeze(-1), labels)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


@torch.inference_mode()
def predict(
    model: nn.Module,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    ranks: Sequence[int | None],
    batch_size: int,
    device: torch.device,
) -> dict[int | None, np.ndarray]:
    """Class ids, or scores of a regression, of each example at each rank: rank -> (examples,).

    One pass over the data, which the processes of a run divide: a batch is padded and moved once
    and then run at every rank. The rank None stands for a model without adapters.
    """
    outputs: dict[int | None, list[Tensor]] = {rank: [torch.empty(0)] for rank in ranks}
    batches = own_share(evaluation_batches([e["length"] for e in examples], batch_size))
    model.eval()
    for indices, at_ranks in batch_ranks(batches, ranks):
        batch = collate([examples[i] for i in indices], tokenizer)
        labels = batch.pop("labels")
        batch = {k: v.to(device) for k, v in batch.items()}
        for rank in at_ranks:
            with at_rank(model, rank):
                logits = model(**batch).logits
            scores = labels.is_floating_point()
            outputs[rank].append(logits.squeeze(-1) if scores else logits.argmax(-1))
    own = {rank: torch.cat([p.cpu().float() for p in parts]) for rank, parts in outputs.items()}
    shares = from_all(([i for batch in batches for i in batch], own))
    order = np.argsort([index for indices, _ in shares for index in indices])
    return {r: torch.cat([share[r] for _, share in shares]).numpy()[order] for r in ranks}


def objective(
    config: Config,
    splits: Splits,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Objective:
    """What the training loop needs: examples, loss, and scores on the first evaluation split."""
    task, smoothing = config.task, config.train.label_smoothing
    held_out = encode(splits[task.eval_splits[0]], tokenizer, task.max_length)
    labels = np.array([e["label"] for e in held_out])

    def scores(model: nn.Module, ranks: Sequence[int | None]) -> Scores:
        size = config.train.eval_batch_size
        predictions = predict(model, held_out, tokenizer, ranks, size, device)
        return {rank: score(task.metrics, predictions[rank], labels) for rank in ranks}

    return Objective(
        examples=encode(splits["train"], tokenizer, task.max_length),
        collate=lambda examples: collate(examples, tokenizer),
        loss=lambda model, batch: loss(model, batch, smoothing),
        evaluate=scores,
        select_metric=task.select_metric,
    )


def evaluate(
    config: Config,
    splits: Splits,
    tokenizer: PreTrainedTokenizerBase,
    model: nn.Module,
    ranks: Sequence[int | None],
    device: torch.device,
    outputs: Path,
) -> tuple[Results, dict[str, str]]:
    """Scores at every rank on all evaluation splits, and what computed each metric.

    The predictions are kept as text in `outputs`.

    The first split's metrics have their plain names, those of another, such as MNLI's
    `validation_mismatched`, end in its name: `accuracy_mismatched`.
    """
    task, size = config.task, config.train.eval_batch_size
    found: Results = {rank: {} for rank in ranks}
    for number, split in enumerate(task.eval_splits):
        examples = encode(splits[split], tokenizer, task.max_length)
        labels = np.array([e["label"] for e in examples])
        predictions = predict(model, examples, tokenizer, ranks, size, device)
        ending = _ending(number, split)
        if is_main():
            write_lines(outputs / f"{split}.labels.txt", _as_text(labels, task))
        for rank, values in predictions.items():
            if is_main():
                write_lines(outputs / f"{split}.rank{rank or 0}.txt", _as_text(values, task))
            by_metric = score(task.metrics, values, labels)
            found[rank] |= {metric + ending: value for metric, value in by_metric.items()}
    return found, dict.fromkeys(task.metrics, SIGNATURE)


def majority(config: Config, splits: Splits) -> dict[str, float]:
    """Scores of a classifier that always gives the most frequent class of the training data.

    Named as those of `evaluate`; empty for a regression.
    """
    task = config.task
    if task.kind == Kind.regression:
        return {}
    found: dict[str, float] = {}
    most = np.bincount(splits["train"]["label"][:]).argmax()
    for number, split in enumerate(task.eval_splits):
        labels = np.array(splits[split]["label"][:])
        by_metric = score(task.metrics, np.full_like(labels, most), labels)
        found |= {metric + _ending(number, split): value for metric, value in by_metric.items()}
    return found


def _ending(number: int, split: str) -> str:
    """Of the names of metrics on the evaluation split of this number."""
    return f"_{split.removeprefix('validation_')}" if number else ""


def _as_text(values: np.ndarray, task: TaskConfig) -> list[str]:
    """Class names, or scores with the digits that float32 has."""
    if task.kind == Kind.classification:
        return [task.labels[int(value)] for value in values]
    return [f"{value:.7g}" for value in values]
