"""Made-up records for the tests of tables, and small experiments to lay them out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dylora.results.layout import Experiment, known_tasks, load_experiments
from dylora.results.published import Published
from dylora.results.runs import load_records
from dylora.results.tables import build_tables
from dylora.results.tables.cells import Cell, Table
from dylora.suite.config import (
    Architecture,
    Config,
    Kind,
    MethodConfig,
    Protocol,
    TaskConfig,
)
from dylora.suite.record_schema import SCHEMA
from dylora.suite.records import signature, without_neutral

METRICS = {"cola": "matthews_correlation", "stsb": "pearson"}
GENERATION = {
    "e2e": ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"],
    "dart": ["BLEU", "METEOR", "TER"],
    "webnlg": ["BLEU", "METEOR", "TER"],
    "toy_e2e": ["BLEU"],
}


def settings(task: str, method: str, seed: int, model: str, max_rank: int, **more: Any) -> Config:
    """A run's configuration; `more` are options of the method, or others as `group__option`."""
    config = Config(seed=seed, protocol=Protocol.paper)
    metric = METRICS.get(task, "accuracy")
    kind = Kind.regression if metric == "pearson" else Kind.classification
    config.task = TaskConfig(
        name=task, kind=kind, metrics=[metric], select_metric=metric, labels=["no", "yes"]
    )
    if task in GENERATION:
        config.task.kind, config.task.metrics = Kind.generation, GENERATION[task]
        config.task.select_metric = "perplexity"
    config.task.toy = task.startswith("toy_")
    config.model.name, config.model.architecture = model, Architecture.encoder
    config.method = MethodConfig(name=method, max_rank=max_rank)
    for name, value in more.items():
        group, _, option = name.rpartition("__")
        place = config if name == "protocol" else getattr(config, group or "method")
        setattr(place, option, value)
    return config


def write_run(
    results: Path,
    task: str = "mrpc",
    method: str = "dylora",
    seed: int = 1,
    model: str = "roberta_base",
    max_rank: int = 8,
    scores: Mapping[int, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """The folder of a finished run; `scores` by rank, one number for all metrics or a dict."""
    config = settings(task, method, seed, model, max_rank, **more)
    ranks = range(1, max_rank + 1) if method in ("lora", "dylora") else [0]
    metrics = config.task.metrics
    by_rank = scores or {rank: 0.8 + 0.01 * rank + 0.001 * seed for rank in ranks}
    content = {
        "schema": SCHEMA,
        "status": "done",
        "signature": signature(config),
        **{"task": task, "model": model, "method": method, "seed": seed},
        "scores": {
            str(rank): value if isinstance(value, dict) else dict.fromkeys(metrics, value)
            for rank, value in by_rank.items()
        },
        "command": f"python run.py task={task} method={method} seed={seed}",
        "started": "2026-01-01T00:00:00+00:00",
        "config": without_neutral(config),
        "device": {"name": "cpu", "threads": 1},
        "parameters": {"total": 1000, "trained": 90, "low_rank": 80},
        "times": {"prepare": 1.0, "train": 100.0 + seed, "evaluate": 8.0},
        "metrics": dict.fromkeys(metrics, "made up"),
        **(record or {}),
    }
    folder = results / "records" / str(content["signature"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(content, indent=1) + "\n")
    return folder


def write_outputs(
    folder: Path, labels: list[str], by_rank: Mapping[int, list[str]], truncation: str = ""
) -> None:
    outputs = folder / "outputs" / truncation
    outputs.mkdir(exist_ok=True)
    (folder / "outputs" / "validation.labels.txt").write_text("\n".join(labels) + "\n")
    for rank, lines in by_rank.items():
        (outputs / f"validation.rank{rank}.txt").write_text("\n".join(lines) + "\n")


ARMS = [
    {"name": "Full", "match": {"method.name": "full"}},
    {"name": "Cut", "match": {"method.name": "lora", "method.max_rank": 4}, "ranks": [1, 2, 4]},
    {"name": "Each", "match": {"method.name": "lora"}, "ranks": [1, 2, 4], "own_rank": True},
    {"name": "Any", "match": {"method.name": "dylora"}, "ranks": [1, 2, 4], "against": ["Cut"]},
]


def experiment(folder: Path, name: str = "small", **layout: Any) -> Experiment:
    """An experiment read from a file, as make_tables reads it."""
    content = {
        "kind": "scores",
        "title": "Small",
        "model": "roberta_base",
        "architecture": "encoder",
        "columns": {"mrpc.accuracy": "MRPC", "rte.accuracy": "RTE"},
        "average": True,
        "best": True,
        "arms": ARMS,
    } | layout
    content = {key: value for key, value in content.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"layout": content}, sort_keys=False))
    found, problems = load_experiments(folder, known_tasks())
    assert not problems
    return next(e for e in found if e.name == name)


def tables_of(
    results: Path, reference: dict[str, list[Published]] | None = None, **layout: Any
) -> list[Table]:
    runs, problems = load_records(results / "records")
    assert not problems
    made, problems = build_tables(experiment(results / "e", **layout), runs, reference or {})
    assert not problems
    return made.tables


def row(table: Table, name: str, detail: str = "") -> dict[str, Cell]:
    found = [r for r in table.rows if (r.name, r.detail) == (name, detail) and not r.published]
    assert len(found) == 1, f"{name} {detail} in {[(r.name, r.detail) for r in table.rows]}"
    return dict(zip(table.header[2:], found[0].cells, strict=True))
