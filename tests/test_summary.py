"""results/REPORT.md: every number comes from the records, none is typed."""

from pathlib import Path

import pytest
from table_records import experiment, write_run

from dylora.results.loading import Folders, load_material
from dylora.results.runs import load_records
from dylora.results.summary import standing, write_summary

ROOT = Path(__file__).parents[1]
ARMS = [
    {"name": "Each", "match": {"method.name": "lora"}, "ranks": [1, 2], "own_rank": True},
    {
        "name": "Sorted",
        "match": {"method.name": "lora", "method.max_rank": 2},
        "ranks": [1, 2],
        "truncation": "svd",
    },
    {"name": "Any", "match": {"method.name": "dylora"}, "ranks": [1, 2]},
]


def test_the_committed_page_is_what_the_committed_records_give(tmp_path: Path) -> None:
    """After new records: make report-md, and commit the page with them."""
    names = ("results", "experiments", "results/reference")
    material = load_material(Folders(*(str(ROOT / name) for name in names)))
    write_summary(tmp_path / "REPORT.md", material)
    committed = (ROOT / "results" / "REPORT.md").read_text(encoding="utf-8")
    assert (tmp_path / "REPORT.md").read_text(encoding="utf-8") == committed


def made_up_runs(folder: Path, seed: int, any_rank: dict[int, float]) -> None:
    svd = {"truncations": {"svd": {"1": {"accuracy": 0.5}, "2": {"accuracy": 0.9}}}}
    write_run(folder, method="lora", seed=seed, max_rank=1, scores={1: 0.8})
    write_run(folder, method="lora", seed=seed, max_rank=2, scores={1: 0.1, 2: 0.9}, record=svd)
    write_run(folder, seed=seed, max_rank=2, scores=any_rank)


def test_the_arms_stand_by_their_mean_over_ranks_for_the_seeds_of_the_bar(tmp_path: Path) -> None:
    made_up_runs(tmp_path, 1, {1: 0.7, 2: 0.8})
    write_run(tmp_path, seed=2, max_rank=2, scores={1: 0.1, 2: 0.1})  # the others lack this seed
    layout = experiment(tmp_path / "e", arms=ARMS, bar="Each").layout
    found = standing(layout, load_records(tmp_path / "records")[0])
    assert found is not None
    assert (found.tasks, found.seeds, found.few) == (["MRPC"], "1 seed", True)
    assert found.bar.mean == pytest.approx(85)
    assert [(arm.name, arm.mean) for arm in found.arms] == [
        ("Any", pytest.approx(75)),
        ("Sorted", pytest.approx(70)),
    ]
    assert (found.arms[0].low, found.arms[0].top) == (pytest.approx(70), pytest.approx(80))


def test_an_arm_that_lacks_a_rank_is_named_and_not_ordered(tmp_path: Path) -> None:
    made_up_runs(tmp_path, 1, {1: 0.7})
    layout = experiment(tmp_path / "e", arms=ARMS, bar="Each").layout
    found = standing(layout, load_records(tmp_path / "records")[0])
    assert found is not None
    assert ([arm.name for arm in found.arms], found.left_out) == (["Sorted"], ["Any"])


def test_no_order_is_stated_without_a_lora_at_each_rank(tmp_path: Path) -> None:
    write_run(tmp_path, max_rank=2, scores={1: 0.7, 2: 0.7})
    layout = experiment(tmp_path / "e", arms=ARMS, bar="Each").layout
    assert standing(layout, load_records(tmp_path / "records")[0]) is None
