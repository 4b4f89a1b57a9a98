"""What a metric is: one object, which tables, figures, cards and paired tests read."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dylora.metrics.sums import Sums

Compute = Callable[[np.ndarray, np.ndarray], float]  # predictions, labels, both (examples,)


@dataclass(frozen=True)
class Unit:
    """How values are printed: times `scale`."""

    scale: float = 1.0
    points: bool = True  # whether 1, as printed, is a point of a hundred
    sign: str = ""  # after the label of an axis


FRACTION = Unit(scale=100.0, sign=" (%)")  # 0.9 is printed as 90.0
PERCENT = Unit()  # already times 100, as BLEU
RAW = Unit(points=False)


@dataclass(frozen=True)
class Metric:
    """One metric.

    `compute` takes class ids or scores; None is for texts, which a protocol of `dylora.metrics.nlg`
    scores. `sums` makes paired tests over the examples possible.
    """

    name: str  # in options and records
    label: str  # in figures and reports
    kinds: tuple[str, ...]  # values of task.kind whose task.metrics may name it
    hub: str  # the Hugging Face hub's id
    unit: Unit
    compute: Compute | None = None
    sums: Sums | None = None
    lower_is_better: bool = False
    two_classes: bool = False  # undefined for more

    def printed(self, value: float) -> float:
        """A value as tables, figures and cards print it."""
        return self.unit.scale * value

    @property
    def axis(self) -> str:
        """The label of an axis, such as `accuracy (%)`."""
        return self.label + self.unit.sign
