"""Statistics of scores: over seeds, over ranks, and paired tests over examples. numpy and scipy."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy.special import bdtr
from scipy.stats import nct, norm, t

from dylora.metrics import METRICS
from dylora.metrics.sums import HITS, Score

RESAMPLES = 1000  # of the paired tests; the smallest p-value is 1 / (RESAMPLES + 1)
LARGEST_EFFECT = 10.0  # deviations, for which two seeds or three are enough; more overflows
ROUNDING = 1e-12  # differences so small are equal
CHUNK = 1 << 22  # numbers held at a time while resampling
Curve = Mapping[int, float]  # rank -> score


class Center(StrEnum):
    """What stands for the seeds."""

    median = "median"
    mean = "mean"


@dataclass(frozen=True)
class Summary:
    """What repetitions under other seeds gave."""

    n: int
    mean: float
    std: float | None  # with n - 1 in the denominator; None for a single value
    median: float

    def center(self, convention: Center) -> float:
        """The number of a convention."""
        return {Center.median: self.median, Center.mean: self.mean}[convention]


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and median of at least one value."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), std, statistics.median(values))


def seeds_needed(std: float, difference: float) -> int:
    """The paired seeds with which a true difference is found in four cases of five.

    `std` is the standard deviation over seeds of the paired differences; the test is Student's,
    two-sided, at 5%.
    """
    effect = min(difference / std, LARGEST_EFFECT)
    # A t-test needs a few more than a normal deviate would, which is where to begin.
    count = max(2, math.floor(((norm.ppf(0.975) + norm.ppf(0.8)) / effect) ** 2))
    while not _power(effect, count) >= 0.8:
        count += 1
    return count


def _power(effect: float, count: int) -> float:
    critical, shift = t.ppf(0.975, count - 1), effect * count**0.5
    return float(nct.sf(critical, count - 1, shift) + nct.cdf(-critical, count - 1, shift))


def aurac(curve: Curve, log2: bool = False) -> float | None:
    """Area under the rank-accuracy curve (MatryoshkaLoRA, arXiv 2605.07850), in units of the score.

    Trapezoids over the rank, or over log2 of the rank, divided by the width from the lowest to the
    highest rank: a flat curve has its own height as its area. None for fewer than two ranks.
    """
    if len(curve) < 2:
        return None
    ranks = sorted(curve)
    x = np.log2(ranks) if log2 else np.array(ranks, dtype=float)
    return float(np.trapezoid([curve[rank] for rank in ranks], x) / (x[-1] - x[0]))


def best_rank(curve: Curve, lower_is_better: bool = False) -> int:
    """The rank with the best score, the smallest of equals."""
    sign = -1 if lower_is_better else 1
    return max(sorted(curve), key=lambda rank: sign * curve[rank])


def worst_rank(curve: Curve, lower_is_better: bool = False) -> int:
    """The rank with the worst score, the smallest of equals."""
    return best_rank(curve, not lower_is_better)


def smallest_rank(curve: Curve, tolerance: float, lower_is_better: bool = False) -> int:
    """The smallest rank whose score is at most `tolerance` worse than the best rank's."""
    best = curve[best_rank(curve, lower_is_better)]
    # Scores are fractions times 100, where 0.5 less is seldom exactly 0.5 in binary.
    return min(rank for rank, score in curve.items() if abs(score - best) <= tolerance + 1e-9)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same examples: ours minus theirs, and whether that could be chance."""

    difference: float  # of the metric, the mean over seeds
    low: float  # 95% percentile interval of the paired bootstrap
    high: float
    bootstrap_p: float  # two-sided
    randomization_p: float  # two-sided
    mcnemar_p: float | None  # exact; for shares of right answers only
    examples: int
    seeds: int

    @property
    def significant(self) -> bool:
        """Both resampling tests at the 5% level, not corrected for the number of comparisons."""
        return max(self.bootstrap_p, self.randomization_p) < 0.05


def compare(
    metric: str, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray, seed: int = 0
) -> Comparison:
    """Paired bootstrap and approximate randomization of a metric over the examples.

    `labels` (examples,), `ours` and `theirs` (seeds, examples): class ids, or scores for pearson.
    The statistic is the metric's difference averaged over the seeds; an example is resampled, or
    swapped between the systems, under all seeds at once, as its outcomes are not independent.

    Every metric here is a function of sums of features over the examples. So equal examples are
    counted rather than repeated, and a resample is a row of counts (multinomial for the bootstrap,
    binomial for the swaps) times the features: exact, and fast for tens of thousands of examples.
    Raises KeyError for a metric without `sums`, or whose features a run must keep.
    """
    sums = METRICS[metric].sums
    if sums is None or sums.features is None:
        raise KeyError(metric)
    features, score = sums.features, sums.score
    mcnemar_p, seeds = None, len(ours)
    if sums is HITS:
        right, other = ours == labels, theirs == labels
        mcnemar_p = _mcnemar_over_seeds(right, other)
        # It is linear, so an example's gain over all seeds says everything, in few different cases.
        gain = (right.sum(axis=0) - other.sum(axis=0))[None]
        features, labels = _weighted, np.full(len(labels), seeds)
        ours, theirs = gain, np.zeros_like(gain)
    cases, counts = _distinct(np.vstack([labels, ours, theirs]).astype(float))
    classes = 1 + int(cases.max()) if "classification" in METRICS[metric].kinds else 0
    a, b = (
        np.stack([features(row, cases[0], classes) for row in side], axis=1, dtype=float)
        for side in np.split(cases[1:], 2)
    )
    return replace(_compared(a, b, counts, score, seed), mcnemar_p=mcnemar_p, seeds=seeds)


def compare_features(
    metric: str, ours: np.ndarray, theirs: np.ndarray, seed: int = 0
) -> Comparison:
    """`compare` for texts, from the features that runs kept: both (seeds, inputs, features)."""
    sums = METRICS[metric].sums
    if sums is None:
        raise KeyError(metric)
    a, b = (np.swapaxes(side, 0, 1).astype(float) for side in (ours, theirs))
    return _compared(a, b, np.ones(len(a), int), sums.score, seed)


def _compared(
    a: np.ndarray, b: np.ndarray, counts: np.ndarray, score: Score, seed: int
) -> Comparison:
    """The tests of two systems (cases, seeds, features), cases occur `counts` times."""
    total_a, total_b = np.tensordot(counts, a, 1), np.tensordot(counts, b, 1)
    observed = float((score(total_a) - score(total_b)).mean())
    bootstrap, randomized = _resample(a, b, counts, score, np.random.default_rng(seed))
    tail = min((bootstrap <= ROUNDING).sum(), (bootstrap >= -ROUNDING).sum())
    extreme = (np.abs(randomized) >= abs(observed) - ROUNDING).sum()
    low, high = np.percentile(bootstrap, [2.5, 97.5])
    return Comparison(
        difference=observed,
        low=float(low),
        high=float(high),
        bootstrap_p=float(min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))),
        randomization_p=float((extreme + 1) / (RESAMPLES + 1)),
        mcnemar_p=None,
        examples=int(counts.sum()),
        seeds=a.shape[1],
    )


def _resample(
    a: np.ndarray, b: np.ndarray, counts: np.ndarray, score: Score, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The difference under the bootstrap and with swapped systems, both (RESAMPLES,).

    `a` and `b` (cases, seeds, features) are the systems, `counts` (cases,) how often a case occurs.
    """

    def difference(sums_a: np.ndarray, sums_b: np.ndarray) -> np.ndarray:
        return (score(sums_a) - score(sums_b)).mean(axis=-1)

    total_a, total_b = np.tensordot(counts, a, 1), np.tensordot(counts, b, 1)
    resampled, swapped = [], []
    for size in _chunk_sizes(len(counts)):
        drawn, swaps = _draw(rng, counts, size)
        resampled.append(difference(np.tensordot(drawn, a, 1), np.tensordot(drawn, b, 1)))
        moved = np.tensordot(swaps, a - b, 1)
        swapped.append(difference(total_a - moved, total_b + moved))
    return np.concatenate(resampled), np.concatenate(swapped)


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test of two accuracies on the same examples.

    `wins` examples are right in the first system only, `losses` in the second only; under the null
    hypothesis wins ~ Binomial(wins + losses, 1/2).
    """
    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def _mcnemar_over_seeds(right: np.ndarray, other: np.ndarray) -> float:
    """One seed's p-value, or twice the median over the seeds; both (seeds, examples) of bool.

    The seeds share their examples, so their counts cannot be added up; twice the median is a valid
    p-value however they depend on each other (Rueschendorf 1982).
    """
    wins, losses = (right & ~other).sum(axis=1), (~right & other).sum(axis=1)
    values = [mcnemar(int(w), int(x)) for w, x in zip(wins, losses, strict=True)]
    return values[0] if len(values) == 1 else min(1.0, 2 * statistics.median(values))


def _distinct(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different columns of a matrix and how often each occurs.

    By a random projection, ten times as fast as np.unique(axis=1); two columns that are not equal
    share a projection about once in 2**53.
    """
    keys = np.random.default_rng(0).random(len(columns)) @ columns
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return columns[:, first], counts


def _weighted(values: np.ndarray, weights: np.ndarray, _: int) -> np.ndarray:
    """Features of a weighted mean, as those of HITS are of a share."""
    return np.stack([values, weights], axis=-1)


def _draw(rng: np.random.Generator, counts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each case is drawn in a bootstrap, how many of it are swapped: (size, cases)."""
    n, cases = int(counts.sum()), len(counts)
    if cases < n:
        swaps = rng.binomial(counts, 0.5, size=(size, cases))
        return rng.multinomial(n, counts / n, size=size), swaps
    # All different, as in a regression: one by one is several times faster.
    places = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    drawn = np.bincount(places.ravel(), minlength=size * n).reshape(size, n)
    return drawn, rng.integers(2, size=(size, n))


def _chunk_sizes(groups: int) -> list[int]:
    size = min(RESAMPLES, max(1, CHUNK // groups))
    whole, rest = divmod(RESAMPLES, size)
    return [size] * whole + [rest] * (rest > 0)
