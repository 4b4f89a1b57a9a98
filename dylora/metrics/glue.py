"""GLUE's official metrics as `evaluate.Metric` classes that need no network and no cache.

`evaluate.load(name)` downloads code; these are built directly. All values are fractions (an
accuracy of 0.9, not 90); `dylora.metrics.METRICS` says how they are printed.
"""

import warnings
from collections.abc import Callable
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Value
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from dylora.errors import UserError


class InMemoryMetric(evaluate.Metric):
    """A metric that keeps its inputs in memory and creates no folder, file or lock."""

    dtype = "int64"
    meaning = ""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        # The parent creates a folder in the Hugging Face home even if nothing will be written.
        return ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.meaning,
            citation="",
            inputs_description="predictions and references, one number per example",
            features=Features(predictions=Value(self.dtype), references=Value(self.dtype)),
        )


class Accuracy(InMemoryMetric):
    meaning = "Share of the examples whose class is predicted."

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1(InMemoryMetric):
    meaning = "Harmonic mean of precision and recall of class 1; 0 where both are undefined."

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        if max(*predictions, *references) > 1:
            raise UserError("metric f1 is for two classes; take it out of task.metrics")
        return {"f1": float(f1_score(references, predictions, pos_label=1, zero_division=0.0))}


class MatthewsCorrelation(InMemoryMetric):
    meaning = "Correlation of two class assignments; 0 when either has one class only."

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        constant = len(set(predictions)) == 1 or len(set(references)) == 1
        value = 0.0 if constant else float(matthews_corrcoef(references, predictions))
        return {"matthews_correlation": value}


class Pearson(InMemoryMetric):
    dtype = "float64"
    meaning = "Linear correlation; 0 when it is undefined (constant or non-finite values)."

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"pearson": _correlation(stats.pearsonr, predictions, references)}


class Spearman(InMemoryMetric):
    dtype = "float64"
    meaning = "Correlation of the ranks; 0 when it is undefined (constant or non-finite values)."

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        return {"spearman": _correlation(stats.spearmanr, predictions, references)}


def _correlation(
    statistic: Callable[..., Any], predictions: list[float], references: list[float]
) -> float:
    pair = np.array([predictions, references])
    if not np.isfinite(pair).all() or np.ptp(pair, axis=1).min() == 0:
        return 0.0
    with warnings.catch_warnings():
        # An untrained head gives nearly equal outputs; the value is still the best there is.
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(statistic(*pair).statistic)


_METRICS: dict[str, type[InMemoryMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "matthews_correlation": MatthewsCorrelation,
    "pearson": Pearson,
    "spearman": Spearman,
}


def compute(name: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """One of GLUE's metrics of class ids or scores against the true ones, both (examples,)."""
    return _METRICS[name]().compute(predictions=predictions, references=labels)[name]
