"""Data-to-text with a decoder: what the loop needs, and the scores of decoded text."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dylora.files import write_lines
from dylora.metrics import nlg
from dylora.rank import at_rank
from dylora.suite.config import Config
from dylora.suite.records import ABSENT
from dylora.tasks.base import Splits
from dylora.training import causal
from dylora.training.bars import batch_ranks
from dylora.training.batching import evaluation_batches
from dylora.training.decode import decode_ranks
from dylora.training.step import Objective, Results, Scores
from dylora.training.workers import from_all, is_main, own_share


def objective(
    config: Config,
    splits: Splits,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Objective:
    """What the training loop needs: examples, loss, and the validation perplexity of each rank."""
    limit = min(config.task.max_length, tokenizer.model_max_length)
    held_out = causal.encode(splits["validation"], tokenizer, limit)
    smoothing, size = config.train.label_smoothing, config.train.eval_batch_size
    return Objective(
        examples=causal.encode(splits["train"], tokenizer, limit),
        collate=lambda examples: causal.collate(examples, tokenizer),
        loss=lambda model, batch: causal.loss(model, batch, smoothing),
        evaluate=lambda model, ranks: perplexity(model, held_out, tokenizer, ranks, size, device),
        count=lambda example: example["length"] - example["prompt_length"],
        select_metric="perplexity",
    )


def perplexity(
    model: nn.Module,
    examples: Sequence[causal.Example],
    tokenizer: PreTrainedTokenizerBase,
    ranks: Sequence[int | None],
    batch_size: int,
    device: torch.device,
) -> Scores:
    """Perplexity per target token, end token included, at each rank.

    One pass over the data, which the processes of a run divide.
    """
    totals, tokens = dict.fromkeys(ranks, 0.0), 0
    model.eval()
    batches = own_share(evaluation_batches([e["length"] for e in examples], batch_size))
    for indices, at_ranks in batch_ranks(batches, ranks):
        batch = causal.collate([examples[i] for i in indices], tokenizer)
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        for rank in at_ranks:
            with at_rank(model, rank):
                total, count = causal.negative_log_likelihood(model, batch)
            totals[rank] += total
        tokens += count
    shares = from_all((totals, tokens))
    all_tokens = sum(tokens for _, tokens in shares)
    losses = {rank: sum(totals[rank] for totals, _ in shares) / all_tokens for rank in ranks}
    # exp cannot give more than a float holds; what is no number comes out as inf too.
    perplexities = {r: math.exp(loss) if loss < 700 else math.inf for r, loss in losses.items()}
    return {rank: {"perplexity": value} for rank, value in perplexities.items()}


def evaluate(
    config: Config,
    splits: Splits,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    ranks: Sequence[int | None],
    device: torch.device,
    outputs: Path,
) -> tuple[Results, dict[str, str]]:
    """Decode the evaluation splits at every rank and score the texts: scores and signatures.

    The processes of a run divide the ranks to decode; the main one alone scores, the others return
    no scores.
    The texts are kept in `outputs`, and a killed decode goes on from there; beside them what a
    paired test of BLEU needs, as the references are not kept. Where inputs belong to
    parts, such as WebNLG's seen and unseen categories, each part has metrics of its own: `BLEU` for
    all, `BLEU_seen`, `BLEU_unseen`. A metric that cannot be computed here is None,
    with the reason in place of its signature.
    """
    task = config.task
    found: Results = {rank: {} for rank in ranks}
    signatures: dict[str, str] = {}
    for split in task.eval_splits:
        rows = splits[split]
        own = decode_ranks(
            model, tokenizer, rows["source"][:], task.decode, outputs, own_share(ranks), split
        )
        texts = {rank: lines for share in from_all(own) for rank, lines in share.items()}
        if not is_main():
            continue
        for rank in ranks:
            given = (task.format, rows["references"][:], texts[rank], task.protocol)
            for name, features in nlg.counts(*given).items():
                lines = (",".join(map(str, row)) for row in features.tolist())
                write_lines(outputs / f"{split}.rank{rank or 0}.{name}.csv", lines)
        for ending, members in _parts(rows).items():
            references = [rows[i]["references"] for i in members]
            for rank in ranks:
                chosen = [texts[rank][i] for i in members]
                scores = nlg.score(task.format, references, chosen, task.protocol, task.metrics)
                found[rank] |= {name + ending: score.value for name, score in scores.items()}
                signatures |= {
                    name: score.signature if score.reason is None else f"{ABSENT}{score.reason}"
                    for name, score in scores.items()
                }
    if is_main():
        for log in outputs.glob("*.jsonl"):  # how far a decode is; now the texts are all there
            log.unlink()
    return found, signatures


def _parts(rows: Dataset) -> dict[str, list[int]]:
    """Numbers of the rows to score together, by the ending of their metrics' names; "" is all."""
    parts = {"": list(range(len(rows)))}
    if "part" in rows.column_names:
        for number, part in enumerate(rows["part"]):
            parts.setdefault(f"_{part}", []).append(number)
    return parts
