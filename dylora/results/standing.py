"""How the ways to have one adapter for every rank stand beside a LoRA trained at each rank."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from dylora.results.curves import MIN_SEEDS, seeds
from dylora.results.layout import Arm, ScoreLayout
from dylora.results.loading import Material
from dylora.results.names import model_name
from dylora.results.runs import Run
from dylora.results.tables.findings import Findings
from dylora.results.tables.selection import Part, parts_of


@dataclass(frozen=True)
class Farthest:
    """A gap to the bar, mean over seeds, and where it is."""

    gap: float
    task: str
    rank: int


@dataclass(frozen=True)
class Standing:
    """An arm of the any-rank experiment: its scores by rank, means over the tasks of the bar."""

    arm: Arm
    curve: dict[int, float]
    worst: Farthest  # farthest behind the bar

    @property
    def name(self) -> str:
        return self.arm.name

    @property
    def mean(self) -> float:
        return fmean(self.curve.values())

    @property
    def low(self) -> float:
        """At the lowest rank."""
        return self.curve[min(self.curve)]

    @property
    def top(self) -> float:
        """At the highest rank."""
        return self.curve[max(self.curve)]


@dataclass(frozen=True)
class Answer:
    """Which arm is best on average, on which tasks, and how sure that is."""

    model: str
    tasks: list[str]
    seeds: str  # how many, such as "1–3 seeds"
    few: bool  # too few on some task to say more than a hint
    bar: Standing
    arms: list[Standing]  # best mean over ranks first
    left_out: list[str]  # arms that lack a task or a seed

    @property
    def steadiest(self) -> Standing:
        """The arm whose worst task and rank is the least far behind the bar."""
        return max(self.arms, key=lambda arm: arm.worst.gap)


def any_rank_standing(material: Material) -> Answer | None:
    """As `standing`, by the experiment any_rank; None without it."""
    layouts = [e.layout for e in material.experiments if e.name == "any_rank"]
    return standing(layouts[0], material.runs) if layouts else None


def texts_standing(material: Material) -> Answer | None:
    """The same for generated texts, by the first metric of the experiment any_rank_texts."""
    for layout in (e.layout for e in material.experiments if e.name == "any_rank_texts"):
        if isinstance(layout, ScoreLayout):
            first = dict(list(layout.columns.items())[:1])
            return standing(replace(layout, columns=first), material.runs)
    return None


def standing(layout: object, runs: Sequence[Run]) -> Answer | None:
    """The any-rank arms over the tasks and seeds for which the bar has a run at every rank.

    Arms that lack any of these are not ordered but named. None without a bar, or its runs.
    """
    if not isinstance(layout, ScoreLayout):
        return None
    part = next((p for p in parts_of(runs, layout) if p.runs and _is_own(p, layout)), None)
    bar = layout.bar_arm
    if part is None or bar is None:
        return None
    values = Findings.of(layout, part).values

    def seeds_of(arm: Arm, key: str) -> set[int]:
        by_rank = values[arm.name, key]
        return set.intersection(*(set(by_rank.get(rank, {})) for rank in arm.ranks))

    common = {key: same for key in layout.columns if (same := seeds_of(bar, key))}
    if not common:
        return None
    arms = [a for a in layout.arms if all(common[key] <= seeds_of(a, key) for key in common)]

    def score(arm: Arm, key: str, rank: int) -> float:
        return fmean(values[arm.name, key][rank][seed][1] for seed in common[key])

    def standing_of(arm: Arm) -> Standing:
        cells = [
            Farthest(score(arm, key, rank) - score(bar, key, rank), layout.columns[key], rank)
            for key in common
            for rank in bar.ranks
        ]
        curve = {rank: fmean(score(arm, key, rank) for key in common) for rank in arm.ranks}
        return Standing(arm, curve, min(cells, key=lambda cell: cell.gap))

    found = [standing_of(arm) for arm in arms]
    return Answer(
        model=model_name(part.model),
        tasks=[layout.columns[key] for key in common],
        seeds=seeds(len(same) for same in common.values()),
        few=min(len(same) for same in common.values()) < MIN_SEEDS,
        bar=next(each for each in found if each.name == bar.name),
        arms=sorted((f for f in found if f.name != bar.name), key=lambda each: -each.mean),
        left_out=[arm.name for arm in layout.arms if arm not in arms],
    )


def _is_own(part: Part, layout: ScoreLayout) -> bool:
    return (part.model, part.protocol, part.limits) == (layout.model, layout.protocol, ())
