"""How long a run would take: its work, at the pace of finished runs. No torch here."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from dylora.methods import METHODS
from dylora.results.runs import Run
from dylora.suite.config import Config, Kind, RankLoss

HOUR, MINUTE = 3600, 60
Option = Callable[[str], Any]  # the value of an option such as train.epochs
Work = dict[str, float]  # stage, as in a record's times -> rows to go through


class Rows(NamedTuple):
    """Of a task: to train on, and to predict at every rank after that."""

    train: int
    scored: int


# As published; of the data that a record was made from, the record itself says it.
PUBLISHED = {
    "cola": Rows(8551, 1043),
    "sst2": Rows(67349, 872),
    "sst2_8k": Rows(8000, 872),
    "mrpc": Rows(3668, 408),
    "stsb": Rows(5749, 1500),
    "rte": Rows(2490, 277),
    "wnli": Rows(635, 71),
    "qnli": Rows(104743, 5463),
    "qqp": Rows(363846, 40430),
    "mnli": Rows(392702, 9815 + 9832),
    "e2e": Rows(42061, 630),
    "webnlg": Rows(18102, 1862),
    "dart": Rows(62659, 5097),
}
LIMITS = ("task.train_rows", "task.max_train_rows", "task.max_eval_rows", "task.holdout")


@dataclass(frozen=True)
class Estimate:
    """What a run would take, by `runs` that are like it."""

    seconds: float
    machine: str  # of those runs
    rough: bool  # whether they are of another task, or in another precision
    runs: Sequence[Run]


@dataclass(frozen=True)
class _Measured:
    """A finished run, and what others must have in common with it."""

    run: Run
    work: Work
    kind: tuple[str, bool]
    numbers: tuple[str, str, bool]


class Estimator:
    """Estimates from finished runs, of which there may be more later.

    Training takes time by rows and epochs, scoring by rows and ranks. The pace of each, seconds for
    a row, is the median over finished runs of the same model: those in the same precision and of
    the same task if there are any, on the machine and with the threads of the last of them.
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        finished = [run for run in runs if run.done]
        self._rows = {_data(run.option): rows for run in finished if (rows := _recorded(run))}
        self._measured: list[_Measured] = []
        for run in finished:
            if rows := self._rows_of(run.option):
                work = _work(run.option, rows, len(run.record.get("truncations", {})))
                kind, numbers = _kind(run.option), _numbers(run.option)
                self._measured.append(_Measured(run, work, kind, numbers))

    def __call__(self, option: Option) -> Estimate | None:
        """What a run with these options would take; None if no run like it is done."""
        rows, like = self._rows_of(option), self._like(option)
        if rows is None or not like:
            return None
        seconds = 0.0
        for stage, amount in _work(option, rows, len(option("evaluate.truncations"))).items():
            seconds += amount * _pace(like, stage)
        runs = [each.run for each in like]
        same_task = runs[0].task == option("task.name")
        rough = not same_task or like[0].numbers != _numbers(option)
        return Estimate(seconds, machine(runs[0]), rough, runs)

    def _rows_of(self, option: Option) -> Rows | None:
        """Rows of a task as far as its limits let them in; None if nobody has said how many."""
        recorded = self._rows.get(_data(option))
        published = PUBLISHED.get(option("task.name"))
        return recorded or (published and _limited(published, option))

    def _like(self, option: Option) -> list[_Measured]:
        """Finished runs of one machine that go as fast for a row."""
        kind, numbers = _kind(option), _numbers(option)
        name, threads = option("task.name"), option("threads")
        chosen = [e for e in self._measured if e.kind == kind]
        chosen = [e for e in chosen if e.numbers == numbers] or chosen
        chosen = [e for e in chosen if e.run.task == name] or chosen
        chosen = [e for e in chosen if _threads(e.run) == threads] or chosen
        last = machine(max((e.run for e in chosen), key=_started)) if chosen else ""
        return [e for e in chosen if machine(e.run) == last]


def option_of(config: Config | DictConfig) -> Option:
    """The options of a configuration by their dotted names."""
    node = config if isinstance(config, DictConfig) else OmegaConf.structured(config)
    return lambda name: OmegaConf.select(node, name)


def machine(run: Run) -> str:
    """What a run was done on, such as `cpu, 2 threads`."""
    name, threads = str(_device(run).get("name", "an unknown device")), _threads(run)
    if name != "cpu" or threads is None:
        return name
    return f"cpu, {threads} thread{'s' if threads != 1 else ''}"


def ranks_scored(option: Option) -> list[int]:
    """Ranks at which a run is scored at its end; [0] for a method without adapters."""
    if not METHODS[option("method.name")].has_ranks:
        return [0]
    return list(option("evaluate.ranks") or range(1, option("method.max_rank") + 1))


def duration(seconds: float) -> str:
    """For people: `2 h 10 min`, `12 min`, `40 s`."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / MINUTE), HOUR // MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _work(option: Option, rows: Rows, truncations: int) -> Work:
    """Rows to go through in each stage; `truncations` is the number of cuts that are scored too."""
    seen = rows.train * option("train.epochs")
    if steps := option("train.max_steps"):
        seen = min(seen, steps * option("train.batch_size") * option("train.accumulation"))
    if option("method.loss") == RankLoss.sum and METHODS[option("method.name")].draws_ranks:
        seen *= option("method.max_rank") - option("method.min_rank") + 1
    ranks = ranks_scored(option)
    below = sum(0 < rank < option("method.max_rank") for rank in ranks)
    scored = {"evaluate": len(ranks), "truncations": truncations * below}
    return {"prepare": 1, "train": seen, **{k: rows.scored * n for k, n in scored.items()}}


def _pace(like: Sequence[_Measured], stage: str) -> float:
    """Median seconds for a row of a stage; of truncations that nobody made, as of scoring."""
    having = [each for each in like if each.work[stage] and stage in each.run.record["times"]]
    if not having:
        return _pace(like, "evaluate") if stage == "truncations" else 0.0
    return statistics.median(e.run.record["times"][stage] / e.work[stage] for e in having)


def _kind(option: Option) -> tuple[str, bool]:
    """Runs of another kind say nothing of a run: the model, and whether it writes texts."""
    return option("model.name"), option("task.kind") == Kind.generation


def _numbers(option: Option) -> tuple[str, str, bool]:
    """What else makes a row faster or slower: precision, and whether all weights learn."""
    learns = METHODS[option("method.name")].trains_backbone
    return option("model.dtype"), option("train.precision"), learns


def _data(option: Option) -> tuple[Any, ...]:
    return (option("task.name"), *map(option, LIMITS))


def _recorded(run: Run) -> Rows | None:
    """The rows that a run's record says it was made from; None of an older record."""
    data = run.record.get("data", {})
    splits = ["train", *run.option("task.eval_splits")]
    if not all(split in data for split in splits):
        return None
    train, *scored = [data[split]["rows"] for split in splits]
    return Rows(train, sum(scored))


def _limited(rows: Rows, option: Option) -> Rows:
    held_out = option("task.holdout") or 0
    limits = [n for name in LIMITS[:2] if (n := option(name)) is not None]
    scored = [held_out or rows.scored, option("task.max_eval_rows") or rows.scored]
    return Rows(min([rows.train - held_out, *limits]), min(scored))


def _device(run: Run) -> dict[str, Any]:
    return run.record.get("device", {})


def _threads(run: Run) -> Any:
    return _device(run).get("threads")


def _started(run: Run) -> str:
    return str(run.record.get("started", ""))
