"""Scores against the rank, as the figures and the report draw them. No torch here."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

from scipy.special import stdtrit

from dylora.methods import METHODS, Method
from dylora.metrics import metric_named
from dylora.results.names import model_name, task_name
from dylora.results.predictions import majority
from dylora.results.runs import Run
from dylora.results.stats import Summary, summarize
from dylora.suite.config import Protocol, Truncation

T = TypeVar("T")
SCORED = ("evaluate.ranks", "evaluate.truncations")  # change no score, only which there are
# What may differ between runs of LoRA trained at each rank, of which alpha or alpha/rank is one.
OF_RANK = ("method.max_rank", "method.alpha", "train.eval_ranks", *SCORED)
MIN_SEEDS = 3  # for a band: with two, the t distribution's is nine standard deviations wide
# The ways to use a LoRA at a lower rank that are drawn; None is the plain cut.
CUTS = {
    None: "truncated",
    Truncation.svd: "sorted by SVD",
    Truncation.svd_kfac: "sorted by its loss",
}
LOOKS = (  # of these names in every panel; others take what is left
    "DyLoRA",
    "LoRA truncated",
    "Full fine-tuning",
    "DyLoRA, sandwich",
    "LoRA trained at each rank",
    "LoRA sorted by SVD",
    "Head only",
)


def _curve_name(method: Method, cut: Truncation | None) -> str:
    return f"{method.label} {CUTS[cut]}" if method.truncates or cut else method.label


def _each_rank_name(method: Method) -> str:
    return f"{method.label} trained at each rank"


@dataclass(frozen=True)
class Series:
    """One line of a panel: the finished runs behind each rank, repetitions under other seeds.

    Rank 0 alone: a method without adapters, which has one score for all ranks.
    """

    name: str
    runs: dict[int, list[Run]]
    look: int = 0  # number of its color and line style, the same for a method in every panel
    each_rank: bool = False  # each rank from runs that were trained at it
    cut: Truncation | None = None  # how a LoRA was brought to its lower ranks

    @property
    def method(self) -> Method:
        return METHODS[next(iter(self.runs.values()))[0].method]

    @property
    def all_runs(self) -> list[Run]:
        """The runs behind any rank, each once."""
        return list({run.signature: run for same in self.runs.values() for run in same}.values())

    @property
    def flat(self) -> bool:
        return list(self.runs) == [0]

    def summary(self, metric: str) -> dict[int, Summary]:
        """Statistics over the seeds at each rank where the metric has a value, in table units."""
        found, printed = {}, metric_named(metric).printed
        for rank, runs in self.runs.items():
            values = [run.truncated(self.cut)[rank].get(metric) for run in runs]
            numbers = [printed(value) for value in values if value is not None]
            if numbers:
                found[rank] = summarize(numbers)
        return found


@dataclass(frozen=True)
class Panel:
    """All series of one task with one model under one protocol."""

    task: str
    model: str
    protocol: Protocol
    limits: dict[str, int]  # not empty: trials, not on all of the data
    metrics: list[str]
    series: list[Series]
    majority: dict[str, float]  # metric -> the score of always naming the most frequent class

    @property
    def title(self) -> str:
        """Such as `MRPC, MiniLM`, another protocol than the paper's, and what makes it a trial."""
        other = "" if self.protocol == Protocol.paper else f", protocol={self.protocol}"
        trial = "".join(f", {name.split('.')[-1]}={value}" for name, value in self.limits.items())
        return f"{task_name(self.task)}, {model_name(self.model)}{other}{trial}"


def band(summary: Summary, metric: str | None = None) -> tuple[float, float] | None:
    """95% confidence interval of the mean over seeds (Student's t); None for fewer than three.

    With a metric's name no further than its values can be.
    """
    if summary.std is None or summary.n < MIN_SEEDS:
        return None
    half = stdtrit(summary.n - 1, 0.975) * summary.std / math.sqrt(summary.n)
    low, high = summary.mean - half, summary.mean + half
    if metric is None:
        return low, high
    return metric_named(metric).clipped(low), metric_named(metric).clipped(high)


def panels(runs: Iterable[Run]) -> list[Panel]:
    """The finished runs by task, model, protocol and limits; the paper's first, trials last."""
    done = sorted((run for run in runs if run.done), key=lambda run: run.seed)

    def place(run: Run) -> tuple[bool, bool, str, str, str]:
        other = run.option("protocol") != Protocol.paper
        return bool(run.limits), other, run.task, run.model, _text(run.limits)

    return [_panel(same) for _, same in sorted(_groups(done, place).items()) if _metrics(same)]


def _panel(runs: Sequence[Run]) -> Panel:
    first, metrics = runs[0], _metrics(runs)
    known = {metric: majority(runs, metric) for metric in metrics}
    return Panel(
        task=first.task,
        model=first.model,
        protocol=Protocol(first.option("protocol")),
        limits=first.limits,
        metrics=metrics,
        series=_series(runs),
        majority={metric: value for metric, value in known.items() if value is not None},
    )


def seeds(counts: Iterable[int]) -> str:
    """How many seeds are behind the points of a series, such as `5 seeds` or `2–5 seeds`."""
    low, *_, high = sorted({*counts}) * 2
    if low == high:
        return "1 seed" if low == 1 else f"{low} seeds"
    return f"{low}–{high} seeds"


def seconds(run: Run, own: bool) -> float:
    """Time to train and score a run; with `own` it is charged for one of its scored ranks only."""
    times = run.record["times"]
    return times["train"] + times["evaluate"] / (len(run.scores) if own else 1)


def device(run: Run) -> str:
    """What the run ran on; times of different devices are not compared."""
    found = run.record.get("device", {})
    name, threads = found.get("name", "unknown device"), found.get("threads")
    return f"{name}, threads: {threads}" if name == "cpu" else name


def _metrics(runs: Sequence[Run]) -> list[str]:
    """The metrics of all runs in the order of their records."""
    return list(dict.fromkeys(m for run in runs for scores in run.scores.values() for m in scores))


def _series(runs: Sequence[Run]) -> list[Series]:
    """A series per method, settings and cut; two of one method are told apart by what differs."""
    conditions = _groups(runs, lambda run: _text(_settings(run, SCORED)))
    shown = [same for same in conditions.values() if _is_curve(same[0], runs)]
    shown.sort(key=lambda same: (list(METHODS).index(same[0].method), same[0].max_rank))
    made = [series for cut in CUTS for series in _cut(shown, cut)]
    made += _trained_at_each_rank(runs)
    looks = _looks([series.name for series in made])
    return [replace(series, look=look) for series, look in zip(made, looks, strict=True)]


def _cut(conditions: Sequence[Sequence[Run]], cut: Truncation | None) -> list[Series]:
    """A series of each condition whose runs were scored with this cut."""
    found = []
    for same in conditions:
        ranks = sorted({rank for run in same for rank in run.truncated(cut)})
        by_rank = {rank: [run for run in same if rank in run.truncated(cut)] for rank in ranks}
        if by_rank:
            found.append(by_rank)
    firsts = [next(iter(by_rank.values()))[0] for by_rank in found]
    names = _names(firsts, lambda method: _curve_name(method, cut), SCORED)
    return [Series(name, by_rank, cut=cut) for name, by_rank in zip(names, found, strict=True)]


def _looks(names: Sequence[str]) -> list[int]:
    """The usual look of a method for the first series of it, what is left for the others."""
    taken: set[int] = set()
    looks = []
    for name in names:
        usual = (name, name.partition(",")[0])
        known = [LOOKS.index(each) for each in usual if each in LOOKS]
        free = (look for look in count(len(LOOKS)) if look not in taken)
        look = next((look for look in known if look not in taken), None)
        looks.append(next(free) if look is None else look)
        taken.add(looks[-1])
    return looks


def _is_curve(run: Run, others: Sequence[Run]) -> bool:
    """Whether a run has a line of its own.

    Of LoRA only what was trained at the highest rank of a DyLoRA, or else at the highest of all: a
    sweep over the trained rank would bring a truncated line for each of them.
    """
    if not METHODS[run.method].truncates:
        return True
    dynamic = {other.max_rank for other in others if METHODS[other.method].trains_every_rank}
    return run.max_rank in (dynamic or {max(other.max_rank for other in others)})


def _trained_at_each_rank(runs: Sequence[Run]) -> list[Series]:
    """LoRA at the rank that it was trained at, where that was done for two ranks or more."""
    own = [run for run in runs if METHODS[run.method].truncates and run.max_rank in run.scores]
    alike = _groups(own, lambda run: _text(_settings(run, OF_RANK)))
    sweeps = [
        same
        for runs in alike.values()
        for constant in (_alpha, _scaling)
        for same in _groups(runs, constant).values()
    ]
    by_ranks = [_groups(same, lambda run: run.max_rank) for same in sweeps]
    found = [dict(sorted(by_rank.items())) for by_rank in by_ranks if len(by_rank) > 1]
    firsts = [next(iter(by_rank.values()))[0] for by_rank in found]
    names = _names(firsts, _each_rank_name, OF_RANK)
    return [
        Series(name, by_rank, each_rank=True) for name, by_rank in zip(names, found, strict=True)
    ]


def _alpha(run: Run) -> float:
    return float(run.option("method.alpha"))


def _scaling(run: Run) -> float:
    return _alpha(run) / run.max_rank


def _names(
    runs: Sequence[Run], name_of: Callable[[Method], str], leave_out: Sequence[str]
) -> list[str]:
    """A name for each of several settings: the method's, and what differs within the method."""
    names = []
    for run in runs:
        mine = _settings(run, leave_out)
        rivals = [_settings(other, leave_out) for other in runs if other.method == run.method]
        differing = [k for k in mine if any(rival.get(k) != mine[k] for rival in rivals)]
        told = (_word(option, mine[option]) for option in differing if mine[option] is not False)
        words = [name_of(METHODS[run.method]), *told]
        names.append(", ".join(words))
    return names


def _word(option: str, value: Any) -> str:
    short = option.split(".")[-1]
    return short if value is True else f"{short}={value}"


def _settings(run: Run, leave_out: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in run.settings.items() if name not in leave_out}


def _groups(runs: Iterable[Run], key: Callable[[Run], T]) -> dict[T, list[Run]]:
    found: dict[T, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
