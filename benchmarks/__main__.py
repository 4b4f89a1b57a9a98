"""Measure this project and others, in turns, in one process.

make bench                              on the CPU: results/bench/cpu.json, the table of
                                        docs/benchmarks.md and its figure
make bench-gpu                          on a GPU: results/bench/gpu.json
python -m benchmarks parts=[steps]      only some of the parts below
python -m benchmarks size=base          RoBERTa-base's shape instead of MiniLM's
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import decoding, growth, loops, workers
from benchmarks.measure import in_turns, machine, matrix_ceiling
from benchmarks.peers import backbone, batch_of, ours, steps, train_step
from dylora.suite.cli import options, plain_errors
from dylora.training.experiment import quiet_libraries
from dylora.training.machine import keep_freed_memory

EXAMPLES, LENGTH, PADDED = 32, 53, 512  # MRPC's batches, and what the released scripts pad to
PAGE = Path("docs/benchmarks.md")
FIGURE = Path("docs/benchmarks.svg")
Part = dict[str, Any]


@dataclass
class Options:
    """What to measure, and how often."""

    parts: list[str] = field(default_factory=lambda: list(PARTS))
    device: str = "cpu"  # or cuda
    size: str = "minilm"  # or base
    repeats: int = 7
    threads: int = 1
    epoch: int = 192  # examples


def main() -> None:
    chosen = options(Options, __doc__)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: torch sees no CUDA device, nothing was measured")
        return
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    quiet_libraries()
    path = Path("results/bench") / ("gpu.json" if chosen.device == "cuda" else "cpu.json")
    found = json.loads(path.read_text()) if path.exists() else {}
    for part in chosen.parts:
        found[part] = {"machine": machine(), **PARTS[part](chosen)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(text(found[part]))
    if chosen.device == "cpu" and PAGE.exists():
        write_page(found)


def measure_steps(chosen: Options) -> Part:
    """A step of each; and how near it is to what the matrix unit can do."""
    batch = batch_of(EXAMPLES, LENGTH, device=chosen.device)
    work, skipped = steps(chosen.size, batch)
    rows = in_turns(work, chosen.repeats).rows("frozen floor")
    ceiling = matrix_ceiling(chosen.device, torch.bfloat16)
    return {"rows": rows, "skipped": skipped, "ceiling_operations_per_second": round(ceiling)}


def measure_released(chosen: Options) -> Part:
    """As the released scripts train: every example padded to 512 tokens, one rank a training."""
    real, padded = (batch_of(EXAMPLES, LENGTH, width, chosen.device) for width in (None, PADDED))
    work = {
        "dylora": train_step(ours(backbone(chosen.size)), real),
        "padded to 512": train_step(ours(backbone(chosen.size), "lora"), padded),
    }
    return {"rows": in_turns(work, min(3, chosen.repeats)).rows("dylora")}


def measure_epochs(chosen: Options) -> Part:
    """An epoch in a training loop, with what that adds to the steps."""
    rows = loops.examples(chosen.epoch)
    work = loops.epochs(chosen.size, rows, chosen.device)
    measured = in_turns(work, min(5, chosen.repeats)).rows("PEFT + Trainer")
    return {"rows": measured, "computed_tokens_per_real_token": round(loops.padding(rows), 3)}


def measure_growth(chosen: Options) -> Part:
    batch = batch_of(EXAMPLES, LENGTH, device=chosen.device)
    return {
        "step": growth.step_against_rank(chosen.size, batch, chosen.repeats),
        "scoring": growth.scoring_against_ranks(chosen.size, batch, chosen.repeats),
        "memory": growth.memory(chosen.size, LENGTH),
    }


def measure_decoding(chosen: Options) -> Part:
    """On the CPU: beam search at four ranks."""
    measured = in_turns(decoding.searches(), min(3, chosen.repeats))
    return {"rows": measured.rows("batches, ranks merged")}


def measure_workers(chosen: Options) -> Part:
    """On the CPU: how many runs a minute a sweep does."""
    return {"workers": workers.throughput(chosen.size, chosen.repeats)}


PARTS: dict[str, Callable[[Options], Part]] = {
    "steps": measure_steps,
    "released": measure_released,
    "epochs": measure_epochs,
    "growth": measure_growth,
    "decoding": measure_decoding,
    "workers": measure_workers,
}


def text(part: Part) -> str:
    """The part's tables in Markdown."""
    lines: list[str] = []
    for name in ("rows", "step", "scoring"):
        if name in part:
            predicted = "predicted" in part[name][0]
            lines += [
                f"| | CPU seconds | ratio (quartiles) |{' predicted |' * predicted}",
                f"| --- | --- | --- |{' --- |' * predicted}",
            ]
            for row in part[name]:
                ratio, low, high = row["ratio"]
                last = f" {row['predicted']:.3f} |" if predicted else ""
                cells = f"{row['cpu_seconds']:.3f} | {ratio:.3f} ({low:.3f} to {high:.3f})"
                lines.append(f"| {row['name']} | {cells} |{last}")
            lines.append("")
    if "memory" in part:
        lines += ["| rank | batch | MB kept for the backward pass |", "| --- | --- | --- |"]
        lines += [f"| {r['rank']} | {r['batch']} | {r['megabytes']} |" for r in part["memory"]]
        lines.append("")
    if "workers" in part:
        lines += [
            "| | runs per minute | ratio (quartiles) | predicted | CPU seconds of a run |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in part["workers"]:
            ratio, low, high = row["ratio"]
            cells = f"{row['runs_per_minute']:.1f} | {ratio:.2f} ({low:.2f} to {high:.2f})"
            last = f"{row['predicted']:.2f} | {row['cpu_seconds_of_a_run']:.2f}"
            lines.append(f"| {row['name']} | {cells} | {last} |")
        lines.append("")
    lines += [f"Left out: {name} ({why})." for name, why in part.get("skipped", {}).items()]
    return "\n".join(lines).rstrip()


def write_page(found: dict[str, Part]) -> None:
    """Put the tables between the marks of the page, and draw the figure beside it."""
    page = PAGE.read_text(encoding="utf-8")
    for name, part in found.items():
        about = part["machine"]
        where = (
            f"{about['cores']} cores, {about['threads']} thread, {about['capability']}, load "
            f"{about['load']}, torch {about['packages']['torch']}"
        )
        marks = (f"<!-- {name} -->", f"<!-- end of {name} -->")
        before, mark, rest = page.partition(marks[0])
        if mark:
            after = rest.partition(marks[1])[2]
            filled = f"{marks[0]}\n\n{text(part)}\n\n({where})\n\n{marks[1]}"
            page = f"{before}{filled}{after}"
    PAGE.write_text(page, encoding="utf-8")
    if {"growth", "workers"} <= found.keys():
        draw(found["growth"], found["workers"])


def draw(part: Part, sweeps: Part) -> None:
    """Measured and predicted: cost against rank and ranks scored, a sweep against its workers."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(8, 6), layout="constrained")
    axes = grid.flatten()
    for axis, name, label in ((axes[0], "step", "rank"), (axes[1], "scoring", "ranks scored")):
        x = [int(re.search(r"\d+", row["name"])[0]) for row in part[name]]  # type: ignore[index]
        axis.set(xlabel=label, ylabel="time, relative", xscale="log")
        axis.set_title("a step against the rank" if name == "step" else "scoring against ranks")
        _curve(axis, x, part[name], "model")
        axis.set_ylim(0, None)
    for rank in sorted({row["rank"] for row in part["memory"]}):
        rows = [row for row in part["memory"] if row["rank"] == rank]
        axes[2].plot(
            [row["batch"] for row in rows],
            [row["megabytes"] for row in rows],
            "o-",
            label=f"rank {rank}",
        )
    axes[2].set(xlabel="batch", ylabel="MB", title="kept for the backward pass", ylim=(0, None))
    rows = [row for row in sweeps["workers"] if row["threads"] == 1]
    axes[3].set(xlabel="workers of one thread", ylabel="runs per minute, relative")
    axes[3].set_title("a sweep against its workers")
    _curve(axes[3], [row["workers"] for row in rows], rows, "model, idle machine")
    for axis in axes:
        axis.legend(frameon=False)
    figure.savefig(FIGURE, metadata={"Date": None})


def _curve(axis: Any, x: list[int], rows: list[dict[str, Any]], model: str) -> None:
    """Measured ratios with their quartiles, beside what a model predicts."""
    middle, low, high = zip(*(row["ratio"] for row in rows), strict=True)
    axis.plot(x, [row["predicted"] for row in rows], "--", color="gray", label=model)
    axis.plot(x, middle, "o-", label="measured")
    axis.fill_between(x, low, high, alpha=0.2)
    axis.set_xticks(x, map(str, x))
    axis.minorticks_off()


if __name__ == "__main__":
    with plain_errors():
        main()
