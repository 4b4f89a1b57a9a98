"""Metrics: what each is, in one table that is cheap to import; how they are computed, beside it.

`glue` computes the metrics of labels, `nlg` those of texts, which depend on a protocol.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dylora.errors import UserError
from dylora.metrics.base import CORRELATION, EDITS, FRACTION, PERCENT, RAW, Compute, Metric
from dylora.metrics.sums import BLEU, F1, HITS, MATTHEWS, PEARSON


def _glue(name: str) -> Compute:
    """A metric of `dylora.metrics.glue`, whose packages take seconds to import."""

    def compute(predictions: np.ndarray, labels: np.ndarray) -> float:
        from dylora.metrics import glue

        return glue.compute(name, predictions, labels)

    return compute


_CLASSES, _SCORES, _TEXTS = ("classification",), ("regression",), ("generation",)
_MCC = "matthews_correlation"
_ALL = (
    Metric("accuracy", "accuracy", _CLASSES, "accuracy", FRACTION, _glue("accuracy"), HITS),
    Metric("f1", "f1", _CLASSES, "f1", FRACTION, _glue("f1"), F1, two_classes=True),
    Metric(_MCC, "matthews correlation", _CLASSES, _MCC, CORRELATION, _glue(_MCC), MATTHEWS),
    Metric("pearson", "pearson", _SCORES, "pearsonr", CORRELATION, _glue("pearson"), PEARSON),
    Metric("spearman", "spearman", _SCORES, "spearmanr", CORRELATION, _glue("spearman")),
    Metric("BLEU", "BLEU", _TEXTS, "bleu", PERCENT, sums=BLEU),
    Metric("NIST", "NIST", _TEXTS, "nist_mt", RAW),
    Metric("METEOR", "METEOR", _TEXTS, "meteor", PERCENT),
    Metric("ROUGE_L", "ROUGE L", _TEXTS, "rouge", PERCENT),
    Metric("CIDEr", "CIDEr", _TEXTS, "cider", RAW),
    Metric("TER", "TER", _TEXTS, "ter", EDITS, lower_is_better=True),
    # Selects the epoch of a generation task; no task.metrics may ask for it.
    Metric("perplexity", "perplexity", (), "perplexity", RAW, lower_is_better=True),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def metric_named(name: str) -> Metric:
    """The metric that a record names, also one of a part of the data, such as `TER_seen`.

    A part has a label of its own and no paired test, as predictions are kept by split. A name that
    is not in METRICS, of a record made elsewhere, is printed raw.
    """
    if name in METRICS:
        return METRICS[name]
    whole = max((own for own in METRICS if name.startswith(f"{own}_")), key=len, default=None)
    if whole is None:
        return Metric(name, name.replace("_", " "), (), name, RAW)
    part = name.removeprefix(whole).replace("_", " ")
    return replace(METRICS[whole], label=METRICS[whole].label + part, sums=None)


def metrics_for(kind: str) -> list[str]:
    """The names that `task.metrics` may have for a kind of task, in the order of the tables."""
    return [name for name, metric in METRICS.items() if kind in metric.kinds]


def score(names: Sequence[str], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Metrics of predicted class ids or scores against the true ones, both (examples,), by name.

    As each metric counts: accuracy and f1 in [0, 1], correlations in [-1, 1]. Raises UserError for
    a name that is no metric of labels.
    """
    values = {}
    for name in names:
        metric = METRICS.get(name)
        if metric is None or metric.compute is None:
            known = ", ".join(own for own, each in METRICS.items() if each.compute)
            raise UserError(f"unknown metric {name!r}; task.metrics takes {known}")
        values[name] = metric.compute(predictions, labels)
    return values
