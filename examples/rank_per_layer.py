"""Does a rank of its own for each layer pay? Score against parameters, beside uniform ranks.

  python examples/rank_per_layer.py record=results/records/NAME
  python examples/rank_per_layer.py record=results/records/NAME adapter=sorted.safetensors

For each size that a uniform rank has, `dylora.allocate` spends the same parameters by energy, and
by the loss on training examples; the scores are those of the run's evaluation split. Writes a table
and a figure. The record is one of `dylora run` for a classification or regression.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

import dylora
from dylora.errors import UserError
from dylora.metrics import score
from dylora.rank import rank_state
from dylora.results.deploy import adapter_file, named_run
from dylora.suite.cli import options, plain_errors
from dylora.suite.config import Kind, PathsConfig
from dylora.tasks import load
from dylora.training.batching import evaluation_batches
from dylora.training.classification import collate, encode, loss
from dylora.training.models import load_backbone

Scores = dict[str, float]


@dataclass
class Options:
    record: str | None = None  # the folder of a run
    adapter: str | None = None  # another file for its backbone and head; null: the run's own
    ranks: list[int] = field(default_factory=lambda: [2, 3, 4, 6])  # whose size is a budget
    rows: int = 256  # training examples by whose loss ranks are chosen
    eval_rows: int | None = None  # examples that are scored; null: all
    output: str = "rank-per-layer"  # folder for the table and the figure
    data: str = "data"  # folder of the task's files
    models: str = "models"  # folder of models, where the hub is not used


@dataclass(frozen=True)
class Point:
    way: str  # uniform, energy or validation
    budget: int  # the uniform rank whose parameters may be spent
    parameters: int  # that are spent
    scores: Scores
    ranks: list[int]  # of the layers, in their order


def batches_of(examples: Sequence[Any], tokenizer: Any) -> list[dict[str, torch.Tensor]]:
    groups = evaluation_batches([example["length"] for example in examples], 64)
    return [collate([examples[i] for i in group], tokenizer) for group in groups]


def scored(model: Any, batches: list[dict[str, torch.Tensor]], metrics: list[str]) -> Scores:
    inputs = [{k: v for k, v in batch.items() if k != "labels"} for batch in batches]
    labels = torch.cat([batch["labels"] for batch in batches])
    logits = torch.cat([model(**batch).logits.float() for batch in inputs])
    predicted = logits.squeeze(-1) if labels.is_floating_point() else logits.argmax(-1)
    return score(metrics, predicted.float().numpy(), labels.numpy())


@torch.inference_mode()
def compare(
    model: Any,
    held_out: list[dict[str, torch.Tensor]],
    training: list[dict[str, torch.Tensor]],
    metrics: list[str],
    ranks: list[int],
) -> list[Point]:
    """The scores at every uniform rank, and of the parameters of `ranks` spent in two ways."""
    overview, points = dylora.summary(model), []

    @cache
    def minus_loss(in_force: tuple[int, ...]) -> float:  # all budgets ask for the same ones
        losses = [loss(model, batch).item() * len(batch["labels"]) for batch in training]
        return -sum(losses) / sum(len(batch["labels"]) for batch in training)

    def gain() -> float:
        in_force = rank_state(model).rank
        assert isinstance(in_force, dict)
        return minus_loss(tuple(in_force.values()))

    choices = [("uniform", rank, dict.fromkeys(overview.costs, rank)) for rank in overview.sizes]
    for rank in ranks:
        size = overview.sizes[rank]
        choices += [
            ("energy", rank, dylora.allocate(model, size)),
            ("validation", rank, dylora.allocate(model, size, by="validation", score=gain)),
        ]
    for way, budget, chosen in choices:
        with dylora.at_rank(model, chosen):
            scores = scored(model, held_out, metrics)
        spent = sum(rank * overview.costs[layer] for layer, rank in chosen.items())
        points.append(Point(way, budget, spent, scores, list(chosen.values())))
        print(way, budget, spent, scores, points[-1].ranks, flush=True)
    return points


def write(points: list[Point], metric: str, folder: Path) -> None:
    """The points as a table, and as a figure of `metric` against the parameters of the adapter."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "points.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["way", "budget", "parameters", *points[0].scores, "ranks"])
        for p in points:
            ranks = " ".join(map(str, p.ranks))
            table.writerow([p.way, p.budget, p.parameters, *p.scores.values(), ranks])
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for way, style in {"uniform": "o-", "energy": "s--", "validation": "^:"}.items():
        own = [p for p in points if p.way == way]
        axes.plot([p.parameters for p in own], [p.scores[metric] for p in own], style, label=way)
    axes.set(xlabel="parameters of the adapter", ylabel=metric)
    axes.legend(title="rank of a layer")
    figure.savefig(folder / "score_by_parameters.svg")
    plt.close(figure)


def main() -> None:
    chosen = options(Options, __doc__, first="record")
    run = named_run(chosen.record)
    config = run.config()
    if config.task.kind is Kind.generation:
        raise UserError(f"{run.folder}: generates text; name a run with labels")
    paths = PathsConfig(data=chosen.data, models=chosen.models)
    model, tokenizer = load_backbone(config.model, config.task, paths)
    dylora.load_adapter(model.eval(), chosen.adapter or adapter_file(run))
    config.task.max_eval_rows = chosen.eval_rows
    splits, length = load(config.task, paths), config.task.max_length
    held_out = encode(splits[config.task.eval_splits[0]], tokenizer, length)
    training = encode(splits["train"].select(range(chosen.rows)), tokenizer, length)
    points = compare(
        model,
        batches_of(held_out, tokenizer),
        batches_of(training, tokenizer),
        config.task.metrics,
        chosen.ranks,
    )
    write(points, config.task.select_metric, Path(chosen.output))


if __name__ == "__main__":
    with plain_errors(OSError):
        main()
