"""Data-to-text with a decoder: tokens, the loss on the target alone, perplexity.

One example is `source <sep> target <end>`, as in LoRA's recipe (arXiv 2106.09685, microsoft/LoRA
examples/NLG): both marks are the end token, and the target starts with a space. The loss counts the
target and its end token.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dylora.errors import UserError

IGNORED = -100  # label of a token that the loss leaves out
Example = dict[str, Any]  # input_ids, prompt_length and length in tokens
Batch = dict[str, Tensor]


def encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
    """Tokens of each pair of `source` and `target`, or of `source` and each of its `references`.

    A pair longer than `max_length`, the least of the task's limit and the model's context, is cut
    at its end, as LoRA's recipe does. Raises UserError naming the row if the input alone leaves no
    room for a target, and if the tokenizer has no end token.
    """
    prompts = encode_prompts(rows["source"][:], tokenizer)
    numbers, targets = zip(*_targets(rows), strict=True)
    end = end_token(tokenizer)
    texts = [" " + target for target in targets]
    continuations = tokenizer(texts, add_special_tokens=False)["input_ids"]
    examples = []
    for number, continuation in zip(numbers, continuations, strict=True):
        prompt = prompts[number]
        if len(prompt) >= max_length:
            raise UserError(
                f"row {number + 1}: the input has {len(prompt)} tokens, which leaves no room for a "
                f"target within {max_length}; remove the row, or raise task.max_length if the "
                f"model's context allows it. It begins {rows[number]['source'][:60]!r}"
            )
        tokens = (prompt + continuation + [end])[:max_length]
        examples.append({"input_ids": tokens, "prompt_length": len(prompt), "length": len(tokens)})
    return examples


def _targets(rows: Dataset) -> Iterator[tuple[int, str]]:
    """The row number and text of every target."""
    if "target" in rows.column_names:
        yield from enumerate(rows["target"])
    else:
        for number, references in enumerate(rows["references"]):
            yield from ((number, reference) for reference in references)


def encode_prompts(sources: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of each input with the separator after it, which is what decoding starts from.

    A begin token that the tokenizer itself puts first (Llama's) is kept; GPT-2's puts none.
    """
    separator = end_token(tokenizer)
    return [[*tokens, separator] for tokens in tokenizer(list(sources))["input_ids"]]


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that ends a text; raises UserError if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no end token, so no "
            'text would ever end: set "eos_token" in its tokenizer_config.json to one of its tokens'
        )
    return tokenizer.eos_token_id


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id to pad with: GPT-2 and Llama have no padding token, and masked any token serves."""
    pad = tokenizer.pad_token_id
    return end_token(tokenizer) if pad is None else pad


def collate(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Right-padded input_ids and attention_mask (batch, length of the longest), and labels.

    Labels (batch, last positions) begin where the first target of the batch does: the tokens
    themselves on the target, `IGNORED` on prompt and padding. That they tell where needs no look at
    their values, for which a GPU would be waited for.
    """
    shape = (len(examples), max(e["length"] for e in examples))
    input_ids = torch.full(shape, padding_token(tokenizer))
    mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for row, example in enumerate(examples):
        start, end = example["prompt_length"], example["length"]
        tokens = torch.tensor(example["input_ids"])
        input_ids[row, :end] = tokens
        mask[row, :end] = 1
        labels[row, start:end] = tokens[start:]
    first = min(e["prompt_length"] for e in examples)  # never 0: prompts have a separator
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels[:, first:]}


def loss(model: nn.Module, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the target tokens of the smoothed cross-entropy, a scalar.

    With smoothing e over V tokens: (1 - e) * (-log p(target)) + e * mean_v(-log p(v)). That is
    LoRA's formula and torch's as well; LoRA divides by the token count plus 1e-4, which is left
    out here.
    """
    logits, labels = _target_logits(model, batch)
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing, ignore_index=IGNORED)


@torch.inference_mode()
def negative_log_likelihood(model: nn.Module, batch: Batch) -> tuple[float, int]:
    """Sum of -log p over the target tokens of a batch, in nats, and their number.

    Summed over batches, exp(sum / number) is the perplexity per target token, end token included.
    """
    logits, labels = _target_logits(model, batch)
    total = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED)
    return total.item(), int((labels != IGNORED).sum())


def _target_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Float32 logits (n, vocabulary) and labels (n,) of the positions that may carry a label.

    The position before a token predicts it. Everything before the first target of the batch needs
    no logits; the vocabulary is the largest matrix of a small model, so that saves much.
    """
    labels = batch["labels"]
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        logits_to_keep=labels.shape[1] + 1,
    ).logits
    return logits[:, :-1].flatten(0, 1).float(), labels.flatten()
