"""The page on metrics, run as it stands; what it adds reaches all places that show metrics."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from huggingface_hub import ModelCard
from sklearn.metrics import balanced_accuracy_score
from small_run import compose_config, config, make_home, record_of
from table_records import experiment as small_experiment
from table_records import write_outputs, write_run
from test_docs import ROOT, blocks

from dylora.errors import UserError
from dylora.metrics import METRICS, score
from dylora.metrics.nlg import PROTOCOLS
from dylora.metrics.nlg import score as score_texts
from dylora.results.card import model_card
from dylora.results.curves import panels
from dylora.results.deploy import Backbone, choose_rank
from dylora.results.figures import scores_figure
from dylora.results.runs import load_records, load_run
from dylora.results.stats import compare
from dylora.results.tables import build_tables, write_tables

NAME = "balanced_accuracy"


@pytest.fixture(autouse=True)
def page() -> Iterator[None]:
    """The page's code has run, block after block; afterwards its metrics are gone."""
    (e2e,) = PROTOCOLS["e2e"]
    with patch.dict(METRICS), patch.dict(e2e.metrics):
        namespace: dict[str, Any] = {}
        for block in blocks(ROOT / "docs" / "howto-metric.md", "python"):
            exec(compile(block, "howto-metric.md", "exec"), namespace)
        yield


def three_classes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions under two seeds (2, 90), and labels (90,) of unequal classes."""
    draw = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [60, 20, 10])
    wrong = draw.random((2, 90)) < 0.3
    return np.where(wrong, draw.integers(0, 3, (2, 90)), labels), labels


def test_its_values_are_those_of_another_implementation() -> None:
    predictions, labels = three_classes(0)
    for row in predictions:
        expected = balanced_accuracy_score(labels, row)
        assert score([NAME], row, labels) == {NAME: pytest.approx(expected)}


def test_the_paired_test_is_of_the_metric() -> None:
    (ours, labels), (theirs, _) = three_classes(0), three_classes(1)
    mine, other = (
        np.mean([balanced_accuracy_score(labels, row) for row in side]) for side in (ours, theirs)
    )
    found = compare(NAME, labels, ours, theirs)
    assert found.difference == pytest.approx(mine - other)
    assert found.low < found.difference < found.high and found.mcnemar_p is None


def test_a_run_computes_it_at_every_rank_and_selects_by_it(tmp_path: Path) -> None:
    from dylora.training import experiment

    asked = (f"task.metrics=[accuracy,{NAME}]", f"task.select_metric={NAME}")
    experiment.run(config(make_home(tmp_path), tmp_path, *asked))
    record = record_of(tmp_path)
    assert [list(values) for values in record["scores"].values()] == [["accuracy", NAME]] * 3
    (folder,) = tmp_path.glob("records/*")
    assert choose_rank(load_run(folder), 0.0).metric == NAME


def runs_of_both_arms(results: Path) -> Path:
    """DyLoRA is always right, LoRA misses 20 of the 50 of one class; the folder of the first."""
    labels = ["yes", "no"] * 50
    flawed = ["no"] * 40 + labels[40:]
    scores = {rank: {"accuracy": 0.8, NAME: 0.8} for rank in (1, 2, 4)}
    options: dict[str, Any] = {"max_rank": 4, "task__metrics": ["accuracy", NAME]}
    cut = write_run(results, method="lora", scores=scores, **options)
    scores = {rank: {"accuracy": 1.0, NAME: 1.0} for rank in (1, 2, 4)}
    whole = write_run(results, scores=scores, **options)
    write_outputs(cut, labels, {1: flawed})
    write_outputs(whole, labels, {1: labels})
    return whole


def test_it_has_a_column_and_its_marks_in_tables(tmp_path: Path) -> None:
    runs_of_both_arms(tmp_path)
    layout = small_experiment(tmp_path / "e", columns={f"mrpc.{NAME}": "MRPC"})
    made, _ = build_tables(layout, load_records(tmp_path / "records")[0], {})
    texts = {(row.name, row.detail): row.cells[0] for row in made.tables[0].rows}
    assert (texts["Cut", "1"].text, texts["Any", "1"].text) == ("80.00", "100.00")
    assert texts["Any", "1"].marks == "†"
    (tests,) = [p for p in write_tables(made, tmp_path / "t") if p.name.endswith("_tests.csv")]
    first = next(csv.DictReader(tests.read_text().splitlines()))
    assert (first["metric"], first["difference"], first["mcnemar_p"]) == (NAME, "20", "")


def test_it_is_in_cards_and_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install 'dylora[report]'")
    run = load_run(runs_of_both_arms(tmp_path))
    card = ModelCard(model_card(run, 1, Backbone("me/base", on_hub=True), "me/words"))
    assert card.data.metrics == ["accuracy", NAME] and "in percent" in card.text
    assert "| **1, this one** | 100.00 | 100.00 |" in card.text
    (panel,) = panels([run])
    assert scores_figure(panel, []).axes[1].get_ylabel() == "balanced accuracy (%)"


def test_a_metric_of_texts_is_scored_by_the_protocols_that_have_it() -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu is absent")
    references = [["A pub by the river.", "A riverside pub."], ["Cheap."]]
    outputs = ["A pub.", "No"]
    found = score_texts("e2e", references, outputs, metrics=["chrF"])["chrF"]
    columns = [["A pub by the river.", "Cheap."], ["A riverside pub.", None]]
    expected = sacrebleu.corpus_chrf(outputs, columns)
    assert found.value == pytest.approx(expected.score)
    assert found.signature.startswith("chrF|protocol:e2e.challenge|nrefs:1-2|case:mixed")
    assert compose_config("task=e2e", "task.metrics=[BLEU,chrF]").task.metrics == ["BLEU", "chrF"]
    with pytest.raises(UserError, match="generation_eval of dart has BLEU, METEOR, TER"):
        compose_config("task=dart", "task.metrics=[BLEU,chrF]")
