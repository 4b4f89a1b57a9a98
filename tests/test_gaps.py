"""The gap to a LoRA trained at each rank: in pairs of one seed and task, at every rank."""

from pathlib import Path
from typing import Any

import pytest
from table_records import experiment, row, write_run

from dylora.results.layout import load_experiments
from dylora.results.runs import load_records
from dylora.results.tables import Table, build_tables

RANKS = [1, 2]
ARMS = [
    {"name": "Each", "match": {"method.name": "lora"}, "ranks": RANKS, "own_rank": True},
    {"name": "Any", "match": {"method.name": "dylora"}, "ranks": RANKS},
]


def gaps(folder: Path, **layout: Any) -> list[Table]:
    chosen = experiment(folder / "e", arms=ARMS, bar="Each", **layout)
    made, _ = build_tables(chosen, load_records(folder / "records")[0], {})
    return [table for table in made.tables if "gap to Each" in table.title]


def write_seed(folder: Path, seed: int, any_rank: dict[int, float], task: str = "mrpc") -> None:
    """LoRA reaches 0.80 at rank 1 and 0.90 at rank 2."""
    write_run(folder, task, "lora", seed, max_rank=1, scores={1: 0.80})
    write_run(folder, task, "lora", seed, max_rank=2, scores={1: 0.10, 2: 0.90})
    write_run(folder, task, seed=seed, max_rank=2, scores=any_rank)


def test_a_gap_is_of_runs_with_one_seed_and_of_loras_own_rank(tmp_path: Path) -> None:
    write_seed(tmp_path, 1, {1: 0.78, 2: 0.91})
    write_run(tmp_path, seed=2, max_rank=2, scores={1: 0.1, 2: 0.1})  # without a partner
    (table,) = gaps(tmp_path)
    found = row(table, "Any", "MRPC")
    assert [found[name].text for name in ("1", "2", "Mean", "Worst rank")] == [
        "-2.00",
        "+1.00",
        "-0.50",
        "-2.00",
    ]
    assert found["Seeds"].text == "1"


def test_three_seeds_have_an_interval_over_their_own_differences(tmp_path: Path) -> None:
    for seed, score in ((1, 0.78), (2, 0.79), (3, 0.80)):
        write_seed(tmp_path, seed, {1: score, 2: 0.9})
    (table,) = gaps(tmp_path)
    # Student's t with 2 degrees of freedom: 4.303 * 1 / sqrt(3) = 2.48 around -1
    assert row(table, "Any", "MRPC")["1"].text == "-1.00 (-3.48 to +1.48)"


def test_the_mean_of_tasks_is_of_seeds_that_have_them_all(tmp_path: Path) -> None:
    write_seed(tmp_path, 1, {1: 0.78, 2: 0.9})
    write_seed(tmp_path, 1, {1: 0.74, 2: 0.9}, task="rte")
    write_seed(tmp_path, 2, {1: 0.1, 2: 0.1}, task="rte")
    (table,) = gaps(tmp_path)
    together = row(table, "Any", "mean of 2 tasks")
    assert (together["1"].text, together["Seeds"].text) == ("-4.00", "1")


def test_a_bar_that_is_no_arm_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):  # the helper wants no problems
        experiment(tmp_path / "e", arms=ARMS, bar="Eech")
    _, (problem,) = load_experiments(tmp_path / "e", {"mrpc", "rte"})
    assert "bar: there is no arm 'Eech'" in str(problem)


def test_what_seeds_change_is_within_the_methods_and_over_seeds(tmp_path: Path) -> None:
    for seed, score in ((1, 0.78), (2, 0.79), (3, 0.80)):
        write_seed(tmp_path, seed, {1: score, 2: 0.9})
        write_run(tmp_path, method="dylora_constant", seed=seed, max_rank=2, scores={1: 0, 2: 0.9})
    constant = {"name": "Other", "match": {"method.name": "dylora_constant"}, "ranks": RANKS}
    chosen = experiment(tmp_path / "e", arms=[*ARMS, constant], bar="Each")
    made, _ = build_tables(chosen, load_records(tmp_path / "records")[0], {})
    (table,) = [table for table in made.tables if "what seeds change" in table.title]
    found = row(table, "MRPC", "accuracy")
    # gaps of -1.0, -0.5, 0.0 and of one and the same: sqrt((2 * 0.5^2 + 2 * 0) / 4)
    texts = [found[name].text for name in ("Its deviation", "That of gaps", "For 0.5", "Seeds")]
    assert texts == ["0.00", "0.35", "7", "3"]


def test_one_rank_for_every_use_stands_beside_the_any_rank_methods(tmp_path: Path) -> None:
    write_seed(tmp_path, 1, {1: 0.78, 2: 0.91})
    one = {"name": "One", "match": {"method.name": "lora", "method.max_rank": 1}, "spread": True}
    chosen = experiment(tmp_path / "e", arms=[*ARMS, one | {"ranks": RANKS}], bar="Each")
    made, _ = build_tables(chosen, load_records(tmp_path / "records")[0], {})
    (table,) = [table for table in made.tables if "gap to Each" in table.title]
    found = row(table, "One", "MRPC")
    assert [found[name].text for name in ("1", "2")] == ["0.00", "-10.00"]
