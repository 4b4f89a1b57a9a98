"""Tokens, labels and losses of decoders, against sums written out token by token."""

import math

import pytest
import torch
from datasets import Dataset
from decoders import TOKENIZER, byte_tokenizer, decoder
from transformers import PreTrainedModel

from dylora.errors import UserError
from dylora.training import causal

TRAIN = Dataset.from_dict(
    {
        "source": ["a : 1", "a longer source : 2 | b : 3", "x"],
        "target": ["One.", "Two, three.", "Four and more words."],
    }
)


def tokens(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


def examples(rows: Dataset = TRAIN, max_length: int = 96) -> list[causal.Example]:
    return causal.encode(rows, TOKENIZER, max_length)


def log_probabilities(model: PreTrainedModel, sequence: list[int]) -> torch.Tensor:
    """Of every token at every position of one sequence, by a plain forward without padding."""
    with torch.no_grad():
        return model(torch.tensor([sequence])).logits[0].log_softmax(dim=-1)


def test_example_is_source_end_space_target_end() -> None:
    (example, *_) = examples()
    assert example["input_ids"] == [*tokens("a : 1"), 0, *tokens(" One."), 0]
    assert example["prompt_length"] == len("a : 1") + 1
    assert example["length"] == len(example["input_ids"])


def test_every_reference_makes_an_example() -> None:
    rows = Dataset.from_dict({"source": ["a", "b"], "references": [["One.", "Two."], ["Three."]]})
    texts = [TOKENIZER.decode(example["input_ids"]) for example in examples(rows)]
    end = "<|endoftext|>"
    expected = ["a", "One."], ["a", "Two."], ["b", "Three."]
    assert texts == [f"{source}{end} {target}{end}" for source, target in expected]


def test_long_example_is_cut_at_its_end() -> None:
    whole = examples()[1]
    assert whole["length"] == 41
    assert examples(max_length=41)[1] == whole, "a length that fits is not cut"
    cut = examples(max_length=40)[1]
    assert cut["input_ids"] == whole["input_ids"][:40]
    assert (cut["prompt_length"], cut["length"]) == (28, 40)


def test_prompt_without_room_for_a_target() -> None:
    with pytest.raises(UserError, match=r"row 2: the input has 28 tokens.*task\.max_length"):
        examples(max_length=28)
    assert examples(max_length=29)[1]["length"] == 29, "one target token is enough"


def test_tokenizer_without_end_token() -> None:
    with pytest.raises(UserError, match=r'no end token.*"eos_token"'):
        causal.encode(TRAIN, byte_tokenizer(end=None), 96)


def test_collate_pads_right_and_labels_targets_only() -> None:
    first, second, _ = examples()
    batch = causal.collate([first, second], TOKENIZER)
    assert sorted(batch) == ["attention_mask", "input_ids", "labels"]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, second["length"])
    assert batch["input_ids"][0, : first["length"]].tolist() == first["input_ids"]
    assert batch["attention_mask"].sum(dim=1).tolist() == [first["length"], second["length"]]
    target = [*tokens(" One."), 0]
    start = min(first["prompt_length"], second["prompt_length"])
    padding = second["length"] - first["length"]
    labels = [-100] * first["prompt_length"] + target + [-100] * padding
    assert batch["labels"][0].tolist() == labels[start:]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_loss_is_the_mean_over_target_tokens(family: str, smoothing: float) -> None:
    """(1 - e) * -log p(target) + e * mean of -log p over the vocabulary, token by token."""
    model = decoder(family)
    terms = []
    for example in examples():
        sequence, start = example["input_ids"], example["prompt_length"]
        logs = log_probabilities(model, sequence)
        for position in range(start, len(sequence)):
            before = logs[position - 1]
            hit = -before[sequence[position]].item()
            spread = -before.mean().item()
            terms.append((1 - smoothing) * hit + smoothing * spread)
    batch = causal.collate(examples(), TOKENIZER)
    loss = causal.loss(model, batch, smoothing)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)


def test_padding_does_not_change_the_loss() -> None:
    model = decoder()
    (example,) = examples(TRAIN.select([0]))
    padded = causal.collate([example, *examples(TRAIN.select([1]))], TOKENIZER)
    padded = {name: tensor[:1] for name, tensor in padded.items()}
    alone = causal.collate([example], TOKENIZER)
    assert causal.loss(model, padded).item() == pytest.approx(causal.loss(model, alone).item())
    assert causal.loss(model, padded, 0.1).item() == pytest.approx(
        causal.loss(model, alone, 0.1).item()
    )


def test_loss_trains() -> None:
    """A few steps lower it: the graph reaches the parameters through the kept logits."""
    model = decoder(width=32).float().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = causal.collate(examples(), TOKENIZER)
    losses = []
    for _ in range(10):
        loss = causal.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_perplexity_does_not_depend_on_batches(family: str) -> None:
    """Sum and count over batches of any size equal those of transformers' own loss, one by one."""
    model = decoder(family)
    total, count = 0.0, 0
    for example in examples():
        labels = torch.tensor([example["input_ids"]])
        labels[:, : example["prompt_length"]] = -100
        number = int((labels != -100).sum())
        with torch.no_grad():
            out = model(torch.tensor([example["input_ids"]]), labels=labels)
        total, count = total + out.loss.item() * number, count + number
    for size in (1, 2, 3):
        parts = [
            causal.negative_log_likelihood(
                model, causal.collate(examples()[start : start + size], TOKENIZER)
            )
            for start in range(0, 3, size)
        ]
        assert sum(n for _, n in parts) == count == 6 + 13 + 22
        perplexity = math.exp(sum(value for value, _ in parts) / count)
        assert perplexity == pytest.approx(math.exp(total / count), rel=1e-5)
