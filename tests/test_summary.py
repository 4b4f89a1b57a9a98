"""results/REPORT.md: every number comes from the records, none is typed."""

import re
from pathlib import Path

import pytest
from table_records import experiment, write_run

from dylora.errors import UserError
from dylora.results.headline import (
    BEGIN,
    CUT,
    END,
    headline_figure,
    text_sentence,
    write_headline,
)
from dylora.results.loading import Folders, Material, load_material
from dylora.results.runs import load_records
from dylora.results.standing import any_rank_standing, standing, texts_standing
from dylora.results.summary import write_summary

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


@pytest.fixture(scope="module")
def material() -> Material:
    """The committed records."""
    names = ("results", "experiments", "results/reference")
    return load_material(Folders(*(str(ROOT / name) for name in names)))


def test_the_readmes_results_are_what_the_committed_records_give(
    tmp_path: Path, material: Material
) -> None:
    committed = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(re.sub(f"{BEGIN}.*{END}", f"{BEGIN} old {END}", committed, flags=re.S))
    figure, _ = write_headline(readme, any_rank_standing(material), texts_standing(material))
    assert readme.read_text(encoding="utf-8") == committed
    assert (ROOT / figure.relative_to(tmp_path)).is_file()


def test_a_further_method_is_in_the_readmes_figure_once_it_has_its_runs(tmp_path: Path) -> None:
    made_up_runs(tmp_path, 1, {1: 0.7, 2: 0.8})
    further = {"name": "Further", "match": {"method.name": "dylora_sqrt"}, "ranks": [1, 2]}
    layout = experiment(tmp_path / "e", arms=[*ARMS, further], bar="Each").layout

    def drawn() -> set[str]:
        found = standing(layout, load_records(tmp_path / "records")[0])
        assert found is not None
        return {str(line.get_label()) for line in headline_figure([found]).axes[0].lines}

    assert drawn() == {"Each", "Any"}
    write_run(tmp_path, method="dylora_sqrt", seed=1, max_rank=2, scores={1: 0.6, 2: 0.9})
    assert drawn() == {"Each", "Any", "Further"}


def test_the_readme_says_what_texts_are_worth_at_the_lowest_rank(tmp_path: Path) -> None:
    made_up_runs(tmp_path, 1, {1: 0.7, 2: 0.8})
    cut = {"name": CUT, "match": {"method.name": "lora", "method.max_rank": 2}, "ranks": [1, 2]}
    layout = experiment(tmp_path / "e", arms=[*ARMS, cut], bar="Each").layout
    found = standing(layout, load_records(tmp_path / "records")[0])
    assert found is not None
    curves = {arm.name: arm.low for arm in [found.bar, *found.arms]}
    said = text_sentence(found)
    assert f"a LoRA trained at that rank scores {curves['Each']:.1f}, " in said
    assert f"*Any* {curves['Any']:.1f}, *{CUT}* {curves[CUT]:.1f} (" in said
    assert "Sorted" not in said, "by its own name only, as in the figure"


def test_a_file_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("mine")
    with pytest.raises(UserError, match="no block between"):
        write_headline(readme, None, None)
    assert readme.read_text() == "mine"
    with pytest.raises(UserError, match="no such file"):
        write_headline(tmp_path / "missing.md", None, None)


def test_the_committed_page_is_what_the_committed_records_give(
    tmp_path: Path, material: Material
) -> None:
    """After new records: make report-md, and commit the page with them."""
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
    worst = found.arms[1].worst
    assert (worst.gap, worst.task, worst.rank) == (pytest.approx(-30), "MRPC", 1)
    assert found.steadiest.name == "Any"


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
