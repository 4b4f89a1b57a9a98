"""A run as the report shows it: facts, scores, history and sample texts, all of it plain text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dylora.metrics import metric_named
from dylora.metrics.base import Metric
from dylora.results.curves import device
from dylora.results.runs import Run
from dylora.suite.config import Kind

POINTS = 150  # of a history's curve; longer ones are averaged
SAMPLES = 8  # texts of a generation run


Line = list[tuple[float, float]]


@dataclass(frozen=True)
class Course:
    """How a value changed during a run: a line of points (x, y) per name."""

    title: str
    axis: str  # what x is: step or epoch
    label: str  # what y is
    lines: dict[str, Line]


@dataclass(frozen=True)
class RunView:
    """Everything that the page says of one run."""

    number: int
    name: str
    status: str
    headline: str
    command: str
    error: str
    facts: list[tuple[str, str]]
    metrics: list[str]
    scores: list[tuple[str, list[str]]]  # rank, a value per metric
    notes: list[str]
    courses: list[Course]
    config: str
    ranks: list[int] = field(default_factory=list)  # that have samples
    samples: dict[int, list[str]] = field(default_factory=dict)  # rank -> texts
    sample_note: str = ""


def view_of(number: int, run: Run) -> RunView:
    """Read what the page shows of `run`; `number` is its place on the page."""
    metrics = list(dict.fromkeys(name for values in run.scores.values() for name in values))
    signatures = run.record.get("metrics") or {}
    samples, note = _samples(run)
    return RunView(
        number=number,
        name=run.signature,
        status=run.record["status"],
        headline=_headline(run, metrics),
        command=run.record.get("command", ""),
        error=run.record.get("error", "") if not run.done else "",
        facts=_facts(run),
        metrics=[metric_named(metric).label for metric in metrics],
        scores=_scores(run, metrics),
        notes=[f"{name}: {text}" for name, text in signatures.items()],
        courses=_courses(run),
        config=_options(run),
        ranks=sorted(samples),
        samples=samples,
        sample_note=note,
    )


def _options(run: Run) -> str:
    """All options as they are named on the command line, one per line."""
    own = {"seed": run.seed, "init_adapter": run.option("init_adapter")}
    return "\n".join(f"{name}: {value}" for name, value in sorted((run.settings | own).items()))


def _headline(run: Run, metrics: Sequence[str]) -> str:
    """Such as `mrpc, minilm, rank 8, seed 1: accuracy 69.0-71.5`."""
    words = [run.task, run.model, run.method]
    words += [f"rank {run.max_rank}"] if run.max_rank else []
    words += [f"seed {run.seed}", *(f"{k.split('.')[-1]}={v}" for k, v in run.limits.items())]
    known = [scores.get(metric) for scores in run.scores.values() for metric in metrics[:1]]
    values = [value for value in known if value is not None]
    if not values:
        return ", ".join(words)
    metric = metric_named(metrics[0])
    low, high = (f"{metric.printed(value):.1f}" for value in (min(values), max(values)))
    shown = low if low == high else f"{low}–{high}"
    return f"{', '.join(words)}: {metric.label} {shown}"


def _facts(run: Run) -> list[tuple[str, str]]:
    """What is known of where, when and at what cost; older or unfinished runs know less."""
    record = run.record
    found: dict[str, Any] = {"Started": record.get("started"), "Device": device(run)}
    found |= {f"Time to {k}": _duration(v) for k, v in (record.get("times") or {}).items()}
    memory = record.get("peak_memory_bytes") or {}
    found |= {f"Peak memory, {k}": f"{v / 2**30:.2f} GiB" for k, v in memory.items() if v}
    found |= {f"Parameters, {k}": f"{v:,}" for k, v in (record.get("parameters") or {}).items()}
    found["Best epoch"] = record.get("best_epoch")
    git = record.get("git") or {}
    if git:
        changes = git.get("uncommitted_changes")
        found["Git"] = str(git.get("commit"))[:12] + (f" with changes {changes}" if changes else "")
    packages = record.get("packages") or {}
    found["Packages"] = ", ".join(f"{name} {v}" for name, v in packages.items() if v)
    found["Platform"] = record.get("platform")
    return [(name.replace("_", " "), str(value)) for name, value in found.items() if value]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def _scores(run: Run, metrics: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A line per rank; percent where scores are fractions, a dash for what is missing."""
    rows = []
    for rank, scores in sorted(run.scores.items()):
        texts = [_score(scores.get(name), metric_named(name)) for name in metrics]
        rows.append((str(rank or "–"), texts))
    return rows


def _score(value: float | None, metric: Metric) -> str:
    return "–" if value is None else f"{metric.printed(value):.2f}"


def _courses(run: Run) -> list[Course]:
    """The loss of the steps and, with two epochs or more, the score after each epoch."""
    courses = []
    steps = [(float(row.step), row.loss) for row in run.steps()]
    if len(steps) > 1:
        size = -(-len(steps) // POINTS)
        label = "loss" if size == 1 else f"loss, means of {size} steps"
        courses.append(Course("Training", "step", label, {"loss": _averaged(steps, size)}))
    metric, rows = run.option("task.select_metric"), run.epochs()
    by_rank: dict[int, Line] = {}
    for row in rows:
        if row.metric == metric and row.value is not None:
            by_rank.setdefault(row.rank, []).append((row.epoch, row.value))
    if by_rank and rows[-1].epoch > 1:
        lines = {f"rank {rank}" if rank else metric: line for rank, line in by_rank.items()}
        courses.append(Course("Validation", "epoch", metric_named(metric).label, lines))
    return courses


def _averaged(points: Line, size: int) -> Line:
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(g[0][0], sum(y for _, y in g) / len(g)) for g in groups]


def _samples(run: Run) -> tuple[dict[int, list[str]], str]:
    """Some texts of a generation run at every rank, from all over the file; and which they are."""
    if run.option("task.kind") != Kind.generation or not run.done:
        return {}, ""
    split = run.option("task.eval_splits")[0]
    texts = {rank: lines for rank in run.scores if (lines := run.output(split, rank))}
    total = min((len(lines) for lines in texts.values()), default=0)
    chosen = sorted({i * total // SAMPLES for i in range(SAMPLES)} if total else set())
    note = f"{len(chosen)} of the {total:,} {split} outputs, at equal distances."
    return {rank: [lines[i] for i in chosen] for rank, lines in texts.items()}, note
