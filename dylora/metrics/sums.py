"""Metrics as functions of sums over the examples, which makes their paired tests exact and fast.

`dylora.results.stats.compare` counts equal examples, resamples the counts, and needs a metric only
as a function of sums of features over the examples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Of predictions and labels, both (cases,), and the number of classes: (cases, features).
Features = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
Score = Callable[[np.ndarray], np.ndarray]  # (..., features) -> (...)


@dataclass(frozen=True)
class Sums:
    """A metric is `score` of the sums of `features` over the examples.

    `score` takes sums (..., features) and returns values (...); the number of classes is that of a
    classification, 0 of a regression. None: the features of texts need references, which are not
    kept with a run; the run keeps the features.
    """

    features: Features | None
    score: Score


def _hits(predictions: np.ndarray, labels: np.ndarray, _: int) -> np.ndarray:
    return np.stack([predictions == labels, np.ones(len(labels))], axis=-1)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _positives(predictions: np.ndarray, labels: np.ndarray, _: int) -> np.ndarray:
    return np.stack([(predictions == 1) & (labels == 1), predictions == 1, labels == 1], axis=-1)


def _f1(sums: np.ndarray) -> np.ndarray:
    return ratio(2 * sums[..., 0], 1.0 * sums[..., 1] + sums[..., 2])


def confusion(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Features whose sums are the confusion matrix: (cases, classes * classes), labels first."""
    return np.eye(classes * classes)[(labels * classes + predictions).astype(int)]


def matrix_of(sums: np.ndarray) -> np.ndarray:
    """The confusion matrix (..., label, prediction) from the sums of `confusion`."""
    classes = math.isqrt(sums.shape[-1])
    return sums.reshape(*sums.shape[:-1], classes, classes)


def _matthews(sums: np.ndarray) -> np.ndarray:
    """The correlation of two class assignments from their confusion matrix (Gorodkin 2004)."""
    matrix = matrix_of(sums)
    true, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    n, right = true.sum(axis=-1), np.trace(matrix, axis1=-2, axis2=-1)
    spread = (n**2 - (true**2).sum(axis=-1)) * (n**2 - (predicted**2).sum(axis=-1))
    return ratio(right * n - (true * predicted).sum(axis=-1), np.sqrt(spread))


def _moments(predictions: np.ndarray, labels: np.ndarray, _: int) -> np.ndarray:
    x, y = predictions - labels.mean(), labels - labels.mean()  # small numbers keep their digits
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=-1)


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.clip(n * xx - x * x, 0, None) * np.clip(n * yy - y * y, 0, None)
    return ratio(n * xy - x * y, np.sqrt(spread))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, and 0 where below is 0, as GLUE's metrics have it."""
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU in percent from lengths (output, closest reference), matches and n-grams of orders 1..4.

    Not smoothed: 0 without a match of some order, as happens to a few sentences but to no corpus.
    """
    lengths, matches, totals = sums[..., :2], sums[..., 2:6], sums[..., 6:]
    precisions = np.where(matches > 0, ratio(1.0 * matches, 1.0 * totals), 1.0)
    shortness = np.minimum(0.0, 1 - ratio(1.0 * lengths[..., 1], 1.0 * lengths[..., 0]))
    value = 100 * np.exp(shortness + np.log(precisions).mean(axis=-1))
    return np.where((matches > 0).all(axis=-1), value, 0.0)


HITS = Sums(_hits, _mean)  # the share of right predictions, which McNemar's exact test is for too
F1 = Sums(_positives, _f1)
MATTHEWS = Sums(confusion, _matthews)
PEARSON = Sums(_moments, _pearson)
BLEU = Sums(None, _bleu)
