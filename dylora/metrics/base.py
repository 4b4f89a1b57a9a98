"""What a metric is: one object, which tables, figures, cards and paired tests read."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dylora.metrics.sums import Sums

Compute = Callable[[np.ndarray, np.ndarray], float]  # predictions, labels, both (examples,)


@dataclass(frozen=True)
class Unit:
    """How values are printed: times `scale`; and between which values they lie before that."""

    scale: float = 1.0
    points: bool = True  # whether 1, as printed, is a point of a hundred
    sign: str = ""  # after the label of an axis
    lowest: float = 0.0
    highest: float = math.inf


FRACTION = Unit(scale=100.0, sign=" (%)", highest=1.0)  # 0.9 is printed as 90.0
CORRELATION = Unit(scale=100.0, sign=" (%)", lowest=-1.0, highest=1.0)
PERCENT = Unit(highest=100.0)  # already times 100, as BLEU
EDITS = Unit()  # also times 100, but of edits there may be more than words
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

    def clipped(self, printed: float) -> float:
        """A printed value, or the nearest that the metric can have."""
        return min(max(printed, self.printed(self.unit.lowest)), self.printed(self.unit.highest))

    @property
    def axis(self) -> str:
        """The label of an axis, such as `accuracy (%)`."""
        return self.label + self.unit.sign
