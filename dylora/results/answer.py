"""The question that the report answers, and the answer in one sentence, from the records alone."""

from collections.abc import Sequence
from statistics import fmean

from dylora.metrics import metric_named
from dylora.results.curves import Panel, Series, seeds
from dylora.results.names import model_name, task_name
from dylora.suite.config import Protocol

QUESTION = "Does one training give an adapter that is good at every rank?"
NO_ANSWER = "There is no answer yet: no task has finished runs of both DyLoRA and LoRA."
DYLORA, SANDWICH, CUT, SORTED, EACH = (
    "DyLoRA",
    "DyLoRA, sandwich",
    "LoRA truncated",
    "LoRA sorted by SVD",
    "LoRA trained at each rank",
)


def compared(found: Sequence[Panel]) -> list[Panel]:
    """The panels of whole runs of DyLoRA and LoRA, of the model and protocol with most of them."""
    groups: dict[tuple[Protocol, str], list[Panel]] = {}
    for panel in found:
        metric = metric_named(panel.metrics[0])
        points = metric.unit.points and not metric.lower_is_better
        if points and not panel.limits and _having(panel, DYLORA) and _having(panel, CUT):
            groups.setdefault((panel.protocol, panel.model), []).append(panel)

    def weight(group: list[Panel]) -> tuple[bool, int]:
        return group[0].protocol == Protocol.paper, len(group)

    return max(groups.values(), key=weight) if groups else []


def answer(found: Sequence[Panel]) -> str:
    """What a truncation to the lowest rank costs each method, mean over the tasks, in points."""
    same = compared(found)
    if not same:
        return NO_ANSWER
    tasks = " and ".join(", ".join(task_name(p.task) for p in same).rsplit(", ", 1))
    runs = {s.n for p in same for s in _of(p, DYLORA).summary(p.metrics[0]).values()}
    low, high = (end(_of(same[0], CUT).runs) for end in (min, max))
    text = (
        f"With {model_name(same[0].model)} on {tasks} ({seeds(runs)}): at rank {low} instead of "
        f"{high} DyLoRA loses {_loss(same, DYLORA):.1f} points, a truncated LoRA "
        f"{_loss(same, CUT):.1f}"
    )
    if all(_having(panel, SORTED) for panel in same):
        text += f", the same LoRA sorted by SVD, which trains nothing, {_loss(same, SORTED):.1f}"
    ahead = fmean(_mean(panel, DYLORA, high) - _mean(panel, CUT, high) for panel in same)
    text += f". At rank {high} DyLoRA is {_signed(ahead)} LoRA"
    if beside := _beside_each_rank(same, DYLORA):
        text += f", {beside}"
    if beside := _beside_each_rank(same, SANDWICH):
        text += f". DyLoRA with sandwich ranks is {beside}"
    return f"{text}."


def _beside_each_rank(same: Sequence[Panel], name: str) -> str:
    """A method against a LoRA trained at each rank, over the ranks and tasks that have both."""
    gaps = [
        fmean(_mean(panel, name, rank) - _mean(panel, EACH, rank) for rank in both)
        for panel in same
        if _having(panel, EACH)
        and _having(panel, name)
        and (both := _ranks(panel, name) & _ranks(panel, EACH))
    ]
    if not gaps:
        return ""
    where = f" ({len(gaps)} of {len(same)} tasks)" if len(gaps) < len(same) else ""
    return f"over all ranks {_signed(fmean(gaps))} a LoRA trained at each rank{where}"


def _signed(points: float) -> str:
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def _loss(same: Sequence[Panel], name: str) -> float:
    """Points from the highest rank to the lowest, mean over the panels."""
    ends = ((panel, _ranks(panel, name)) for panel in same)
    return fmean(_mean(p, name, max(ranks)) - _mean(p, name, min(ranks)) for p, ranks in ends)


def _having(panel: Panel, name: str) -> bool:
    return any(series.name == name for series in panel.series)


def _of(panel: Panel, name: str) -> Series:
    return next(series for series in panel.series if series.name == name)


def _ranks(panel: Panel, name: str) -> set[int]:
    return set(_of(panel, name).summary(panel.metrics[0]))


def _mean(panel: Panel, name: str, rank: int) -> float:
    return _of(panel, name).summary(panel.metrics[0])[rank].mean
