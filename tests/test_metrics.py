"""The table of metrics: what each is, how a name finds it, and that it is cheap to import."""

import subprocess
import sys

import pytest

from dylora.metrics import METRICS, metric_named, metrics_for

# name: kinds, the hub's id, printed for 0.5, digits, lower is better
KNOWN = {
    "accuracy": (("classification",), "accuracy", 50.0, True, False),
    "f1": (("classification",), "f1", 50.0, True, False),
    "matthews_correlation": (("classification",), "matthews_correlation", 50.0, True, False),
    "pearson": (("regression",), "pearsonr", 50.0, True, False),
    "spearman": (("regression",), "spearmanr", 50.0, True, False),
    "BLEU": (("generation",), "bleu", 0.5, True, False),
    "NIST": (("generation",), "nist_mt", 0.5, False, False),
    "METEOR": (("generation",), "meteor", 0.5, True, False),
    "ROUGE_L": (("generation",), "rouge", 0.5, True, False),
    "CIDEr": (("generation",), "cider", 0.5, False, False),
    "TER": (("generation",), "ter", 0.5, True, True),
    "perplexity": ((), "perplexity", 0.5, False, True),
}


def test_what_is_known_of_each_metric() -> None:
    assert {
        name: (m.kinds, m.hub, m.printed(0.5), m.unit.points, m.lower_is_better)
        for name, m in METRICS.items()
    } == KNOWN


def test_a_task_asks_for_the_metrics_of_its_kind_in_the_order_of_the_tables() -> None:
    assert metrics_for("regression") == ["pearson", "spearman"]
    assert metrics_for("generation") == ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr", "TER"]


@pytest.mark.parametrize(
    ("name", "whole", "label"),
    [
        ("accuracy_mismatched", "accuracy", "accuracy mismatched"),
        ("matthews_correlation_test", "matthews_correlation", "matthews correlation test"),
        ("ROUGE_L_seen", "ROUGE_L", "ROUGE L seen"),
        ("TER_unseen", "TER", "TER unseen"),
    ],
)
def test_a_metric_of_a_part_of_the_data_is_its_metric(name: str, whole: str, label: str) -> None:
    found, metric = metric_named(name), METRICS[whole]
    assert (found.name, found.label) == (whole, label)
    assert (found.hub, found.unit, found.lower_is_better) == (
        metric.hub,
        metric.unit,
        metric.lower_is_better,
    )


def test_a_part_of_the_data_has_no_paired_test_as_the_kept_predictions_are_of_a_split() -> None:
    assert metric_named("accuracy").sums and metric_named("accuracy_mismatched").sums is None


def test_the_longest_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    macro = METRICS["accuracy"]
    monkeypatch.setitem(METRICS, "f1_macro", macro)
    assert metric_named("f1_macro_mismatched").name == "accuracy"
    assert metric_named("f1_mismatched").name == "f1"


def test_a_metric_of_a_record_made_elsewhere_is_printed_raw() -> None:
    found = metric_named("top_5")
    assert (found.label, found.hub, found.printed(0.5), found.kinds) == ("top 5", "top_5", 0.5, ())
    assert metric_named("accuracyx").name == "accuracyx", "a part begins with _"


@pytest.mark.parametrize("module", ["dylora.metrics", "dylora.suite.validation"])
def test_nothing_heavy_is_imported_to_know_the_metrics(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "datasets", "evaluate", "sklearn", "scipy", "nltk"}
    assert not heavy & set(done.stdout.split())
