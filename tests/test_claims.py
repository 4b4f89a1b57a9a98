"""Verdicts on the paper's claims, and Table 5's search, from made-up records."""

from pathlib import Path
from typing import Any

import pytest
from table_records import experiment, write_outputs, write_run

from dylora.results.claim_figures import write_claim_figures
from dylora.results.layout import known_tasks, load_experiments
from dylora.results.loading import Material
from dylora.results.published import Confidence, Published, load_published
from dylora.results.runs import load_records
from dylora.results.tables import Table, build_tables
from dylora.results.tables.cells import DASH
from dylora.suite.config import Protocol

ROOT = Path(__file__).parents[1]
CUT = {"name": "LoRA", "match": {"method.name": "lora"}, "ranks": [1]}
ANY = {"name": "DyLoRA", "match": {"method.name": "dylora"}, "ranks": [1]}
CLAIM: dict[str, Any] = {
    "text": "better",
    "ours": ANY,
    "theirs": CUT,
    "ours_in": "t",
    "theirs_in": "t",
}
PUBLISHED = {
    "t": [
        Published(["roberta_base"], name, "1", "s", Confidence.primary, values)
        for name, values in (
            ("DyLoRA", {"mrpc.accuracy": "80.0±1.0", "rte.accuracy": "70.0", "average": "75.1"}),
            ("LoRA", {"mrpc.accuracy": "60.0", "rte.accuracy": "65.0", "average": "62.4"}),
        )
    ]
}


def judged(results: Path, claim: dict[str, Any] | None = None, **more: Any) -> list[Table]:
    layout = {
        "kind": "claims",
        "title": "Claims",
        "model": "roberta_base",
        "architecture": "encoder",
        "columns": {"mrpc.accuracy": "MRPC", "rte.accuracy": "RTE"},
        "claims": [CLAIM | (claim or {})],
    }
    found = experiment(results / "e", **layout, average=None, best=None, arms=None, **more)
    made, problems = build_tables(found, load_records(results / "records")[0], PUBLISHED)
    assert not problems
    return made.tables


def lines(table: Table) -> dict[str, dict[str, str]]:
    return {
        r.detail: dict(zip(table.header[2:], (cell.text for cell in r.cells), strict=True))
        for r in table.rows
    }


def seeds(results: Path, task: str, ours: tuple[float, ...], theirs: tuple[float, ...]) -> None:
    for seed, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1):
        write_run(results, task, "dylora", seed, max_rank=1, scores={1: a})
        write_run(results, task, "lora", seed, max_rank=1, scores={1: b})


def test_without_runs_a_claim_shows_the_published_averages_and_is_not_run(tmp_path: Path) -> None:
    [table] = judged(tmp_path)
    cells = lines(table)["mean of 2 tasks"]
    assert cells["Published"] == "75.10 against 62.40: +12.70"
    assert cells["Verdict"] == "not run" and cells["Ours"] == cells["Seeds"] == DASH
    assert any("results/reference/t.yaml" in note for note in table.notes)


@pytest.mark.parametrize(
    ("ours", "margin", "verdict"),
    [
        ((0.80, 0.81, 0.82), 0.0, "reproduced (above 0)"),
        ((0.69, 0.71, 0.72), 0.0, "undecided (above 0)"),  # -2.5 to +3.5 says nothing
        ((0.60, 0.61, 0.62), 0.0, "not reproduced (above 0)"),
        ((0.695, 0.705, 0.71), 3.0, "reproduced (above -3)"),
        ((0.60, 0.61, 0.59), 3.0, "not reproduced (above -3)"),
    ],
)
def test_an_interval_decides_a_claim_only_if_it_lies_on_one_side_of_what_is_needed(
    tmp_path: Path, ours: tuple[float, ...], margin: float, verdict: str
) -> None:
    seeds(tmp_path, "mrpc", ours, (0.70, 0.70, 0.71))
    cells = lines(judged(tmp_path, {"margin": margin})[0])["MRPC"]
    assert cells["Verdict"] == verdict and cells["Seeds"] == "3"
    assert cells["Published"] == "80.00 against 60.00: +20.00"


def test_the_interval_is_students_over_the_seeds(tmp_path: Path) -> None:
    seeds(tmp_path, "mrpc", (0.80, 0.81, 0.82), (0.70, 0.70, 0.70))
    [row] = judged(tmp_path)[0].rows
    cells = dict(zip(judged(tmp_path)[0].header[2:], row.cells, strict=True))
    half = 4.302653 / 3**0.5  # t of two degrees of freedom; the deviation is one point
    assert cells["95% interval"].text == f"+{11 - half:.2f} to +{11 + half:.2f}"
    assert cells["Difference"].value == pytest.approx(11) and len(cells["Ours"].runs) == 6


def test_one_seed_is_judged_by_its_examples_or_not_at_all(tmp_path: Path) -> None:
    labels = ["yes", "no"] * 50
    ours = write_run(tmp_path, max_rank=1, scores={1: 1.0})
    theirs = write_run(tmp_path, method="lora", max_rank=1, scores={1: 0.5})
    assert lines(judged(tmp_path)[0])["MRPC"]["Verdict"] == "undecided (above 0)"
    write_outputs(ours, labels, {1: labels})
    write_outputs(theirs, labels, {1: ["yes"] * 100})
    cells = lines(judged(tmp_path)[0])["MRPC"]
    assert cells["Verdict"] == "reproduced (above 0)" and cells["Difference"] == "+50.00"


def test_several_tasks_are_judged_together_and_each(tmp_path: Path) -> None:
    seeds(tmp_path, "mrpc", (0.80, 0.81, 0.82), (0.70, 0.70, 0.70))
    seeds(tmp_path, "rte", (0.60, 0.61, 0.62), (0.70, 0.70, 0.70))
    found = lines(judged(tmp_path)[0])
    assert list(found) == ["mean of 2 tasks", "MRPC", "RTE"]
    assert found["mean of 2 tasks"]["Ours"] == "71.00 against 70.00"
    verdicts = [cells["Verdict"].split(" (")[0] for cells in found.values()]
    assert verdicts == ["undecided", "reproduced", "not reproduced"]


def test_by_task_each_task_has_its_published_difference_run_or_not(tmp_path: Path) -> None:
    [table] = judged(tmp_path, by_task=True)
    published = {on: cells["Published"] for on, cells in lines(table).items()}
    assert published == {
        "MRPC": "80.00 against 60.00: +20.00",
        "RTE": "70.00 against 65.00: +5.00",
    }


def test_trials_and_other_protocols_decide_no_claim_of_the_papers(tmp_path: Path) -> None:
    for method in ("dylora", "lora"):
        for change in ({"train__max_steps": 5}, {"protocol": Protocol.released}):
            write_run(tmp_path, method=method, max_rank=1, **change)
    first, second = judged(tmp_path)
    assert not first.measured and "protocol=paper" in first.title
    assert "protocol=released" in second.title
    assert lines(second)["MRPC"]["Published"] == DASH


def test_a_claim_on_time_counts_all_ranks_of_the_sweep(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_run(tmp_path, seed=seed, max_rank=2, scores={1: 0.5, 2: 0.5})  # 108 + seed seconds
        for rank in (1, 2):
            write_run(tmp_path, method="lora", seed=seed, max_rank=rank, scores={rank: 0.5})
    claim = {
        "measure": "time",
        "at_least": 1.9,
        "theirs": {**CUT, "ranks": [1, 2], "own_rank": True},
        "ours": {**ANY, "ranks": [2]},
    }
    cells = lines(judged(tmp_path, claim)[0])["MRPC"]
    assert cells["Difference"] == "2.00x" and cells["Verdict"] == "reproduced (above 1.9x)"
    cells = lines(judged(tmp_path, {**claim, "at_least": 3})[0])["MRPC"]
    assert cells["Verdict"] == "not reproduced (above 3x)"


def test_a_claim_on_the_best_rank_compares_each_side_at_its_own(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_run(tmp_path, seed=seed, max_rank=2, scores={1: 0.8 + seed / 100, 2: 0.7})
        for rank, score in ((1, 0.6), (2, 0.75)):
            write_run(tmp_path, method="lora", seed=seed, max_rank=rank, scores={rank: score})
    both = {"ranks": [1, 2]}
    claim = {"measure": "best", "ours": ANY | both, "theirs": CUT | both | {"own_rank": True}}
    cells = lines(judged(tmp_path, claim)[0])["MRPC"]
    assert cells["Ours"] == "82.00 against 75.00"


def test_each_claim_with_runs_has_a_figure_and_the_others_are_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is absent: pip install 'dylora[report]'")
    seeds(tmp_path, "mrpc", (0.80, 0.81, 0.82), (0.70, 0.70, 0.70))
    layout = {"kind": "claims", "title": "Claims", "model": "roberta_base"}
    layout |= {"architecture": "encoder", "columns": {"mrpc.accuracy": "MRPC"}}
    unseen = {**ANY, "match": {"method.name": "matryoshka"}}
    claims = [CLAIM, CLAIM | {"text": "much better", "ours": unseen}]
    found = experiment(tmp_path / "e", **layout, claims=claims, average=None, best=None, arms=None)
    runs, problems = load_records(tmp_path / "records")
    material = Material(runs, [found], PUBLISHED, problems)
    files, not_drawn = write_claim_figures(material, tmp_path)
    assert [path.suffix for path in files] == [".png", ".pdf"] and all(p.is_file() for p in files)
    assert [line.partition(":")[0].endswith("(much better)") for line in not_drawn] == [True]


def test_the_papers_claims_have_its_printed_differences() -> None:
    experiments, problems = load_experiments(ROOT / "experiments", known_tasks())
    published, _ = load_published(ROOT / "results" / "reference")
    assert not problems
    gaps: dict[str, list[str]] = {}
    for name in ("claims", "each_rank"):
        found = next(e for e in experiments if e.name == name)
        [table] = build_tables(found, [], published)[0].tables
        gaps[name] = [row.cells[0].text.partition(": ")[2] for row in table.rows]
    assert gaps["claims"] == [
        *("+29.32", "+29.32", "+0.17", "7.83x", "+1.42", "+0.81", "-0.12"),
        *("1.82x", "+1.48", "-0.34", "+0.26"),
    ]
    assert gaps["each_rank"] == [
        *("-3.91", "-0.77", "-0.35", "+2.13", "-0.63", "-0.34"),
        *("-1.76", "-0.53", "+0.02", "-4.30", "-0.78", "-0.48"),
    ]


def test_a_search_shows_the_best_rank_and_what_it_cost(tmp_path: Path) -> None:
    write_run(tmp_path, frozen=True, max_rank=4, scores={1: 0.8, 2: 0.7, 3: 0.9, 4: 0.6})
    for rank, score in ((1, 0.6), (2, 0.95), (4, 0.7)):
        write_run(tmp_path, method="lora", max_rank=rank, scores={rank: score})
    layout = {
        "kind": "search",
        "title": "Search",
        "model": "roberta_base",
        "architecture": "encoder",
        "columns": {"mrpc.accuracy": "MRPC"},
        "max_ranks": [4, 2],
        "once": {"name": "Frozen", "match": {"method.name": "dylora"}},
        "sweep": {"name": "Search", "match": {"method.name": "lora"}},
    }
    found = experiment(tmp_path / "e", **layout, average=None, best=None, arms=None)
    [table] = build_tables(found, load_records(tmp_path / "records")[0], {})[0].tables
    rows = {(r.name, r.detail): [cell.text for cell in r.cells] for r in table.rows}
    assert rows["Search", "4"] == ["3.0x", "95.00 (2)", "1"]
    assert rows["Frozen", "4"] == ["1x", "90.00 (3)", "1"]
    assert rows["Search", "2"][1] == "95.00 (2)" and rows["Frozen", "2"] == [DASH, DASH, DASH]
