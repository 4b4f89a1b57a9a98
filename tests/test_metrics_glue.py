"""The metrics are GLUE's: equal to scikit-learn and SciPy, defined for constant predictions."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from dylora.errors import UserError
from dylora.metrics import score

CLASSES = ["accuracy", "f1", "matthews_correlation"]
CORRELATIONS = ["pearson", "spearman"]


def test_hand_computed_classification() -> None:
    # 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
    predictions = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    labels = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
    values = score(CLASSES, predictions, labels)
    assert values == {
        "accuracy": pytest.approx(7 / 10),
        "f1": pytest.approx(2 * 3 / (2 * 3 + 1 + 2)),
        "matthews_correlation": pytest.approx((3 * 4 - 1 * 2) / np.sqrt(4 * 5 * 5 * 6)),
    }
    assert list(values) == CLASSES  # the order of task.metrics


def test_hand_computed_correlations() -> None:
    predictions, labels = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])
    values = score(CORRELATIONS, predictions, labels)
    # deviations (-4/3, -1/3, 5/3) and (-1, 0, 1): 3 / sqrt(14/3 * 2)
    assert values["pearson"] == pytest.approx(3 / np.sqrt(28 / 3))
    assert values["spearman"] == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_equal_to_scikit_learn(dtype: type) -> None:
    random = np.random.default_rng(0)
    predictions: np.ndarray = random.integers(0, 2, 500).astype(dtype)
    labels: np.ndarray = random.integers(0, 2, 500).astype(dtype)
    assert score(CLASSES, predictions, labels) == {
        "accuracy": accuracy_score(labels, predictions),
        "f1": f1_score(labels, predictions),
        "matthews_correlation": matthews_corrcoef(labels, predictions),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_to_scipy(dtype: type) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 26, 500).astype(dtype) / 5  # with ties, as STS-B's scores
    predictions: np.ndarray = (labels + random.normal(0, 1, 500)).astype(dtype)
    values = score(CORRELATIONS, predictions, labels)
    assert values["pearson"] == pytest.approx(stats.pearsonr(predictions, labels)[0], abs=1e-6)
    assert values["spearman"] == pytest.approx(stats.spearmanr(predictions, labels)[0], abs=1e-12)


def test_three_classes() -> None:
    predictions, labels = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])
    values = score(["accuracy", "matthews_correlation"], predictions, labels)
    assert values["accuracy"] == 0.75
    assert values["matthews_correlation"] == pytest.approx(matthews_corrcoef(labels, predictions))
    with pytest.raises(UserError, match=r"f1 is for two classes.*task\.metrics"):
        score(["f1"], predictions, labels)


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 0, 0], [1, 1, 1]])
def test_constant_classes_give_no_warning(constant: int, labels: list[int]) -> None:
    """Warnings are errors in these tests: an untrained head predicts one class only."""
    values = score(CLASSES, np.full(3, constant), np.array(labels))
    assert values["matthews_correlation"] == 0.0
    assert values["f1"] == (f1_score(labels, [1, 1, 1]) if constant and any(labels) else 0.0)


@pytest.mark.parametrize(
    "predictions",
    [[2.0, 2.0, 2.0], [1.0, np.nan, 2.0], [1.0, np.inf, 2.0]],
    ids=["constant", "nan", "infinite"],
)
def test_undefined_correlations_are_zero(predictions: list[float]) -> None:
    values = score(CORRELATIONS, np.array(predictions), np.array([1.0, 2.0, 3.0]))
    assert values == {"pearson": 0.0, "spearman": 0.0}


def test_one_example_has_no_correlation() -> None:
    values = score(CORRELATIONS, np.array([1.0]), np.array([2.0]))
    assert values == {"pearson": 0.0, "spearman": 0.0}


def test_nearly_constant_predictions_are_correlated_without_warning() -> None:
    predictions: np.ndarray = 1.0 + np.array([0, 1, 2]) * 2.0**-52
    values = score(CORRELATIONS, predictions, np.array([1.0, 2.0, 3.0]))
    assert values == {"pearson": pytest.approx(1.0), "spearman": pytest.approx(1.0)}


def test_unknown_metric_names_the_choices() -> None:
    with pytest.raises(UserError, match=r"'mcc'; task\.metrics takes accuracy, f1, matthews"):
        score(["mcc"], np.array([0]), np.array([0]))


def test_a_metric_of_texts_is_no_metric_of_labels() -> None:
    with pytest.raises(UserError, match="unknown metric 'BLEU'"):
        score(["BLEU"], np.array([0]), np.array([0]))


@pytest.mark.slow
def test_needs_neither_network_nor_a_writable_home() -> None:
    """evaluate's own constructor makes folders in HF_HOME, which a cluster node may not have."""
    code = (
        "import numpy as np; from dylora.metrics import METRICS, score;"
        "names = [name for name, metric in METRICS.items() if metric.compute];"
        "print(score(names, np.array([0, 1]), np.array([0, 1])))"
    )
    # Not even root can create a folder below a device.
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": "/dev/null/home", "HOME": "/dev/null"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "'spearman'" in run.stdout
