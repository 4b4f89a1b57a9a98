"""From your own CSV with the columns text and label to a PEFT adapter of the best rank.

python examples/csv_to_adapter.py reviews.csv MODEL adapter
"""

import csv
import random
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import dylora

table, source, output = sys.argv[1:4]
with Path(table).open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
random.Random(1).shuffle(rows)
labels = sorted({row["label"] for row in rows})
tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
torch.manual_seed(1)
model = AutoModelForSequenceClassification.from_pretrained(
    source, num_labels=len(labels), trust_remote_code=False
)
model = dylora.adapt(model, max_rank=8)  # query and value layers


def batch(some: list[dict[str, str]]) -> dict[str, torch.Tensor]:
    tokens = tokenizer(
        [r["text"] for r in some], padding=True, truncation=True, return_tensors="pt"
    )
    return {**tokens, "labels": torch.tensor([labels.index(r["label"]) for r in some])}


held_out, training = rows[: len(rows) // 5], rows[len(rows) // 5 :]
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
draw = dylora.RankSampler(max_rank=8, seed=1)
for step in range(5 * len(training) // 16):  # 5 epochs
    with dylora.at_rank(model.train(), draw(step)):
        model(**batch(random.Random(step).choices(training, k=16))).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def accuracy(logits: torch.Tensor, truth: torch.Tensor) -> float:
    return (logits.argmax(-1) == truth).float().mean().item()


scores = dylora.evaluate_ranks(model, [batch(held_out)], accuracy)
print(scores)
dylora.export_peft(model, output, rank=max(scores, key=lambda rank: (scores[rank], -rank)))
