"""Statistics against scipy, hand-worked numbers and exact enumeration."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats as scipy_stats

from dylora.metrics import METRICS, score
from dylora.metrics.bleu import mteval
from dylora.results.stats import (
    RESAMPLES,
    Center,
    aurac,
    best_rank,
    compare,
    compare_features,
    mcnemar,
    seeds_needed,
    smallest_rank,
    summarize,
    worst_rank,
)

PAIRED = [name for name, metric in METRICS.items() if metric.sums and metric.sums.features]


def test_summary_is_mean_sample_deviation_and_median() -> None:
    values = [86.0, 87.0, 85.0, 90.0, 82.0]
    summary = summarize(values)
    assert (summary.n, summary.median) == (5, 86.0)
    assert summary.mean == pytest.approx(86.0)
    assert summary.std == pytest.approx(np.std(values, ddof=1))
    assert summary.center(Center.median) == 86.0
    assert summarize([1, 2, 6]).center(Center.mean) == 3
    assert summarize([3.0]).std is None


def test_aurac_is_a_mean_height_over_rank_or_its_logarithm() -> None:
    assert aurac({1: 80.0, 2: 80.0, 8: 80.0}) == pytest.approx(80)
    curve = {8: 90.0, 1: 60.0, 2: 80.0}  # order does not matter
    assert aurac(curve) == pytest.approx(((60 + 80) / 2 * 1 + (80 + 90) / 2 * 6) / 7)
    assert aurac(curve, log2=True) == pytest.approx(((60 + 80) / 2 * 1 + (80 + 90) / 2 * 2) / 3)
    assert aurac({4: 80.0}) is None


@pytest.mark.parametrize(
    ("effect", "count"), [(0.05, 3142), (0.5, 34), (0.8, 15), (1.0, 10), (1e16, 3)]
)
def test_seeds_needed_are_those_of_the_tables_of_paired_t_tests(effect: float, count: int) -> None:
    assert seeds_needed(std=2.0, difference=2 * effect) == count  # G*Power 3.1


def test_best_worst_and_smallest_good_rank() -> None:
    curve = {1: 84.2, 2: 84.9, 4: 85.4, 8: 85.4}
    assert (best_rank(curve), worst_rank(curve)) == (4, 1)
    assert smallest_rank(curve, 0.5) == 2, "84.9 is 0.5 below the best, which is allowed"
    assert smallest_rank(curve, 0.4) == 4
    errors = {1: 50.0, 2: 46.2, 4: 46.0}
    assert best_rank(errors, lower_is_better=True) == 4
    assert worst_rank(errors, lower_is_better=True) == 1
    assert smallest_rank(errors, 0.5, lower_is_better=True) == 2


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 3), (5, 1), (0, 12), (30, 12)])
def test_mcnemar_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    exact = scipy_stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses) == pytest.approx(exact)


def outcomes(metric: str, n: int, seeds: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    if metric == "pearson":
        labels = rng.uniform(0, 5, n)
        return (
            labels,
            labels + rng.normal(size=(seeds, n)),
            labels + 2 * rng.normal(size=(seeds, n)),
        )
    labels = rng.integers(0, 2, n)
    wrong = [rng.random((seeds, n)) < share for share in (0.1, 0.25)]
    return labels, *(np.where(w, 1 - labels, labels) for w in wrong)


@pytest.mark.parametrize("metric", PAIRED)
def test_the_difference_is_that_of_the_recorded_metric(metric: str) -> None:
    labels, ours, theirs = outcomes(metric, 150)

    def mean(predictions: np.ndarray) -> float:
        return float(np.mean([score([metric], p, labels)[metric] for p in predictions]))

    found = compare(metric, labels, ours, theirs)
    assert found.difference == pytest.approx(mean(ours) - mean(theirs))
    assert (found.examples, found.seeds) == (150, 2)
    assert found.low < found.difference < found.high


def test_matthews_correlation_of_three_classes_and_of_a_constant() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    ours = np.where(rng.random(60) < 0.3, rng.integers(0, 3, 60), labels)[None]
    constant = np.zeros((1, 60), dtype=int)
    found = compare("matthews_correlation", labels, ours, constant)
    recorded = score(["matthews_correlation"], ours[0], labels)
    assert found.difference == pytest.approx(recorded["matthews_correlation"])


@pytest.mark.parametrize("metric", PAIRED)
def test_resampling_agrees_with_scipy(metric: str) -> None:
    """The interval with scipy's paired bootstrap, the p-value with its permutation test."""
    labels, ours, theirs = outcomes(metric, 80, seeds=1)
    sums = METRICS[metric].sums
    assert sums is not None and sums.features is not None
    features = sums.features

    def difference(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        ours, theirs = (sums.score(features(x, y, 2).sum(axis=0)) for x in (a, b))
        return float(ours - theirs)

    options: Any = {"n_resamples": 2000, "vectorized": False, "rng": np.random.default_rng(1)}
    data = (labels, ours[0], theirs[0])
    interval = scipy_stats.bootstrap(
        data, difference, paired=True, method="percentile", **options
    ).confidence_interval
    swapped = scipy_stats.permutation_test(
        data[1:], lambda a, b: difference(labels, a, b), permutation_type="samples", **options
    )
    found = compare(metric, labels, ours, theirs)
    tolerance = 0.1 * (interval.high - interval.low)
    assert found.low == pytest.approx(interval.low, abs=tolerance)
    assert found.high == pytest.approx(interval.high, abs=tolerance)
    assert found.randomization_p == pytest.approx(swapped.pvalue, abs=0.04)


def test_two_systems_texts_are_compared_as_sacrebleu_does() -> None:
    """BLEU from the features that runs keep, against sacrebleu's own approximate randomization."""
    words = ["the", "inn", "by", "the", "river", "serves", "cheap", "French", "food", "and", "wine"]
    rng = np.random.default_rng(2)
    truth = [" ".join(rng.choice(words, 12)) for _ in range(60)]

    def system(share: float) -> list[str]:
        spoiled = [[w if rng.random() > share else "x" for w in text.split()] for text in truth]
        return [" ".join(text) for text in spoiled]

    ours, theirs = system(0.20), system(0.24)
    kept = [mteval.counts([[text] for text in truth], texts)[None] for texts in (ours, theirs)]
    found = compare_features("BLEU", *kept)
    settings = {"lowercase": True, "tokenize": "13a", "references": [truth]}
    named = [("theirs", theirs), ("ours", ours)]
    test = PairedTest(named, {"BLEU": BLEU(**settings)}, None, test_type="ar", n_samples=2000)
    _, scores = test()
    (base, other) = scores["BLEU"]
    assert found.difference == pytest.approx(other.score - base.score)
    assert 0.01 < found.randomization_p < 0.9
    assert found.randomization_p == pytest.approx(other.p_value, abs=0.04)
    assert (found.examples, found.seeds, found.mcnemar_p) == (60, 1, None)


def test_randomization_agrees_with_all_swaps() -> None:
    """Ten examples under two seeds: every one of the 2**10 swaps by hand."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 10)
    ours, theirs = rng.integers(0, 2, (2, 2, 10))
    gain = ((ours == labels).astype(int) - (theirs == labels)).sum(axis=0)  # per example
    observed = abs(gain.sum())
    swaps = [abs(np.dot(signs, gain)) >= observed for signs in product((1, -1), repeat=10)]
    found = compare("accuracy", labels, ours, theirs)
    assert found.randomization_p == pytest.approx(np.mean(swaps), abs=0.05)


def test_no_difference_is_never_significant_and_a_clear_one_always() -> None:
    labels, ours, _ = outcomes("accuracy", 300)
    same = compare("accuracy", labels, ours, ours)
    assert same.difference == 0 and not same.significant
    assert (same.bootstrap_p, same.randomization_p, same.mcnemar_p) == (1, 1, 1)
    clear = compare("accuracy", labels, ours, 1 - ours)
    assert clear.significant
    assert clear.bootstrap_p == pytest.approx(2 / (RESAMPLES + 1))
    assert clear.randomization_p == pytest.approx(1 / (RESAMPLES + 1))


def test_under_the_null_hypothesis_one_in_twenty_is_significant() -> None:
    rng = np.random.default_rng(11)
    rejected = 0
    for _ in range(200):
        labels = rng.integers(0, 2, 100)
        ours, theirs = (np.where(rng.random((1, 100)) < 0.2, 1 - labels, labels) for _ in range(2))
        rejected += compare("accuracy", labels, ours, theirs).randomization_p < 0.05
    assert rejected <= 20  # 10 are expected at most, 20 are three standard deviations away


def test_the_same_seed_gives_the_same_numbers() -> None:
    data = outcomes("matthews_correlation", 90)
    assert compare("matthews_correlation", *data) == compare("matthews_correlation", *data)
    assert compare("matthews_correlation", *data) != compare("matthews_correlation", *data, seed=1)


def test_mcnemar_over_seeds_is_twice_the_median() -> None:
    labels = np.zeros(20, dtype=int)
    theirs = np.zeros((3, 20), dtype=int)
    ours = theirs.copy()
    ours[1, :5], ours[2, :10] = 1, 1  # 0, 5 and 10 losses
    found = compare("accuracy", labels, ours, theirs)
    assert found.mcnemar_p == pytest.approx(2 * scipy_stats.binomtest(0, 5).pvalue)
    assert math.isclose(found.difference, -0.25)


def test_many_examples_do_not_need_much_memory() -> None:
    """Regression cannot be grouped; resamples are drawn in parts then."""
    rng = np.random.default_rng(0)
    labels = rng.normal(size=20_000)
    ours, theirs = labels + rng.normal(size=(2, 1, 20_000))
    found = compare("pearson", labels, ours, theirs)
    assert found.low < found.difference < found.high
