"""A rank that predicts the same for every example is marked wherever its score stands."""

from pathlib import Path

import pytest
from small_run import config, make_home, record_of
from table_records import row, tables_of, write_outputs, write_run

from dylora.results.tables.scores import CONSTANT
from dylora.suite.cli import score_table
from dylora.training import experiment


def test_a_run_that_learnt_one_class_says_so_beside_the_majority_baseline(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    train = home / "data" / "train.csv"
    rows = train.read_text().replace(",bad", ",good")
    train.write_text(rows)
    experiment.run(config(home, tmp_path / "results", "train.learning_rate=0.05"))
    record = record_of(tmp_path / "results")
    assert record["constant"] == {"1": "good", "2": "good", "3": "good"}
    assert record["majority"] == record["scores"]["1"], "both give every example the same class"
    *_, third, baseline = score_table(record).splitlines()
    assert "'good' for every example" in third and "most frequent label" in baseline


def test_a_run_that_tells_the_classes_apart_is_not_marked(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    more = ("train.learning_rate=0.02", "train.epochs=8")
    record = experiment.run(config(home, tmp_path / "results", *more))
    assert record["constant"] == {}
    assert "every example" not in score_table(record)


@pytest.mark.parametrize("truncation", ["", "svd"])
def test_a_table_notes_the_cell_of_a_rank_that_predicts_one_class(
    tmp_path: Path, truncation: str
) -> None:
    arm = {"name": "Cut", "match": {"method.name": "lora"}, "ranks": [1, 2]}
    more = {"truncations": {"svd": {"1": {"accuracy": 0.6}, "2": {"accuracy": 0.7}}}}
    folder = write_run(tmp_path, method="lora", max_rank=4, record=more)
    (folder / "outputs").mkdir()
    mixed, same = ["no", "yes", "no", "yes"], ["yes"] * 4
    write_outputs(folder, mixed, {1: mixed, 2: mixed})
    write_outputs(folder, mixed, {1: same, 2: mixed}, truncation)
    if truncation:
        arm |= {"truncation": truncation}
    (table, *_) = tables_of(tmp_path, arms=[arm])
    assert row(table, "Cut", "1")["MRPC"].note == CONSTANT
    assert row(table, "Cut", "2")["MRPC"].note == ""
    assert any(CONSTANT in note for note in table.all_notes)
