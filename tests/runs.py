"""Made-up finished runs for the tests of tables, figures and the report: no training, no torch."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dylora.files import write_lines
from dylora.methods import METHODS
from dylora.suite.config import (
    Architecture,
    Config,
    Kind,
    MethodConfig,
    ModelConfig,
    Protocol,
    TaskConfig,
)
from dylora.suite.history import write_history
from dylora.suite.record_schema import SCHEMA
from dylora.suite.records import Record, signature, without_neutral, write_record

METRICS = {"mrpc": ["accuracy", "f1"], "rte": ["accuracy"], "e2e": ["BLEU", "ROUGE_L"]}
SENTENCES = ("The Vaults is a pub .", "The Vaults is a cheap pub near Café Adriatic .")


def config(task: str, method: str, seed: int = 1, max_rank: int = 4, **options: Any) -> Config:
    """A configuration as Hydra would compose it; `options` are those of the method."""
    metrics = METRICS.get(task, ["accuracy"])
    generation = metrics[0] == "BLEU"
    return Config(
        task=TaskConfig(
            name=task,
            kind=Kind.generation if generation else Kind.classification,
            format="e2e" if generation else "glue",
            metrics=metrics,
            select_metric="perplexity" if generation else "accuracy",
            eval_splits=["test" if generation else "validation"],
            labels=[] if generation else ["0", "1"],
        ),
        model=ModelConfig(
            name="gpt2_medium" if generation else "roberta_base",
            architecture=Architecture.decoder if generation else Architecture.encoder,
        ),
        method=MethodConfig(name=method, max_rank=max_rank, **options),
        protocol=Protocol.paper,
        seed=seed,
    )


def score(run: Config, rank: int) -> float:
    """LoRA falls when it is truncated, DyLoRA does not; each seed a little apart."""
    lost = 0.08 * (run.method.max_rank - rank) if run.method.name == "lora" else 0.0
    return 0.9 - lost + 0.004 * rank + 0.005 * run.seed


def write(results: Path, run: Config, **changes: Any) -> Path:
    """The folder of a run as `run.py` leaves it, with record, outputs and adapter.

    `changes` replace parts of the record, such as status="failed".
    """
    adapted = METHODS[run.method.name].has_ranks
    ranks = range(1, run.method.max_rank + 1) if adapted else [0]
    scale = 70.0 if run.task.kind == Kind.generation else 1.0
    folder = results / "records" / signature(run)
    record: Record = {
        "schema": SCHEMA,
        "status": "done",
        "signature": signature(run),
        "task": run.task.name,
        "model": run.model.name,
        "method": run.method.name,
        "seed": run.seed,
        "scores": {
            str(b): {name: scale * score(run, b) for name in run.task.metrics} for b in ranks
        },
        "command": f"python run.py task={run.task.name} method={run.method.name}",
        "started": "2026-01-02T03:04:05+00:00",
        "config": without_neutral(run),
        "device": {"name": "cpu", "threads": 1},
        "parameters": {"total": 9000, "trained": 900, "low_rank": 100 * run.method.max_rank},
        "packages": {"torch": "2.13.0"},
        "git": {"commit": "0123456789abcdef", "uncommitted_changes": None},
        "best_epoch": 1,
        "times": {"prepare": 2.0, "train": 100.0 + run.seed, "evaluate": 5.0},
        "peak_memory_bytes": {"host": 1_500_000_000, "device": None},
    }
    write_history(folder, *_history())
    write_record(folder, record | changes)
    for b in ranks:
        _write_outputs(folder, run, b)
    if adapted:
        _write_adapter(folder, run)
    return folder


def _history() -> tuple[list[Record], list[Record]]:
    steps = [
        {"step": i, "loss": 0.7 * 0.97**i + 0.02 * (i % 3), "rank": 1.0 + i % 4, "lr": 1e-3}
        for i in range(60)
    ]
    scores = {"1": {"accuracy": 0.8}, "4": {"accuracy": 0.9}}
    epochs = [
        {"epoch": number, "step": 20 * number, "scores": scores, "selected": 0.85}
        for number in (1, 2, 3)
    ]
    return steps, epochs


def _write_outputs(folder: Path, run: Config, rank: int) -> None:
    split = run.task.eval_splits[0]
    if run.task.kind == Kind.generation:
        lines = [f"{SENTENCES[rank > 1]} ({i})" for i in range(12)]
    else:
        generator = np.random.default_rng([run.seed, rank])
        labels = ["01"[i % 2] for i in range(40)]
        write_lines(folder / "outputs" / f"{split}.labels.txt", labels)
        right = generator.random(40) < score(run, rank)
        lines = [label if ok else "10"[int(label)] for label, ok in zip(labels, right, strict=True)]
    write_lines(folder / "outputs" / f"{split}.rank{rank}.txt", lines)


def _write_adapter(folder: Path, run: Config) -> None:
    generator = np.random.default_rng(run.seed)
    rank = run.method.max_rank
    tensors = {}
    for layer in ("layer.0.query", "layer.1.value"):
        tensors[f"{layer}.lora_A"] = generator.normal(size=(rank, 16)).astype(np.float32)
        tensors[f"{layer}.lora_B"] = generator.normal(size=(8, rank)).astype(np.float32)
    tensors["classifier.weight"] = np.ones((2, 16), dtype=np.float32)
    save_file(tensors, folder / "adapter.safetensors")
