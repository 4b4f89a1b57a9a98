"""Tables from made-up records: what is shown, what is never shown, and how damage is reported."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import table_records
import yaml
from table_records import GENERATION, experiment, row, tables_of, write_outputs, write_run

from dylora.results.layout import known_tasks, load_experiments
from dylora.results.published import Confidence, Published
from dylora.results.runs import load_records
from dylora.results.tables import build_tables, write_tables
from dylora.results.tables.cells import DASH
from dylora.results.tables.render import markdown
from dylora.suite.config import Protocol

ROOT = Path(__file__).parents[1]


def test_fractions_become_percent_with_mean_deviation_and_number_of_seeds(tmp_path: Path) -> None:
    for seed, score in enumerate((0.80, 0.82, 0.90), start=1):
        write_run(tmp_path, seed=seed, max_rank=4, scores={1: score, 2: score, 4: 0.5})
    table = tables_of(tmp_path)[0]
    cells = row(table, "Any", "1")
    assert cells["MRPC"].text == "84.00 ± 5.29"
    assert cells["Seeds"].text == "3"
    assert [run.seed for run in cells["MRPC"].runs] == [1, 2, 3]
    assert row(table, "Any", "4")["MRPC"].text == "50.00 ± 0.00"


def test_the_protocols_have_tables_of_their_own_with_their_own_aggregation(tmp_path: Path) -> None:
    for protocol in Protocol:
        for seed, score in enumerate((0.80, 0.82, 0.90), start=1):
            write_run(tmp_path, method="full", seed=seed, scores={0: score}, protocol=protocol)
    first, second = tables_of(tmp_path)
    assert "protocol=paper): mean over seeds" in first.title
    assert "protocol=released): median over seeds" in second.title
    assert row(first, "Full")["MRPC"].text.startswith("84.00")
    assert row(second, "Full")["MRPC"].text.startswith("82.00")
    assert [len(row(table, "Full")["MRPC"].runs) for table in (first, second)] == [3, 3]


def test_generation_is_averaged_in_both_protocols(tmp_path: Path) -> None:
    for seed, score in enumerate((40.0, 41.0, 45.0), start=1):
        place = ("dart", "full", seed, "gpt2_medium")
        write_run(tmp_path, *place, scores={0: score}, protocol=Protocol.released)
    layout = {"model": "gpt2_medium", "architecture": "decoder", "columns": {"dart.BLEU": "BLEU"}}
    table = tables_of(tmp_path, average=False, **layout)[1]
    assert row(table, "Full")["BLEU"].value == pytest.approx(42.0)


def test_generation_scores_are_shown_as_they_are(tmp_path: Path) -> None:
    scores = {"BLEU": 68.25, "NIST": 8.625, "METEOR": None, "ROUGE_L": 71.0, "CIDEr": 2.5}
    write_run(tmp_path, "e2e", "full", model="gpt2_medium", scores={0: scores})
    columns = {f"e2e.{metric}": metric for metric in GENERATION["e2e"]}
    table = tables_of(
        tmp_path, model="gpt2_medium", architecture="decoder", columns=columns, average=False
    )[0]
    texts = [cell.text for cell in row(table, "Full").values()]
    assert texts == ["68.25", "8.62", DASH, "71.00", "2.50", "1"]
    assert any("e2e BLEU: made up" in note for note in table.notes), "what computed it is unsaid"


def test_truncated_and_trained_at_each_rank_are_told_apart(tmp_path: Path) -> None:
    for rank in (1, 2, 4):
        write_run(
            tmp_path, method="lora", max_rank=rank, scores=dict.fromkeys((1, 2, 4), rank / 10)
        )
    table = tables_of(tmp_path)[0]
    assert [row(table, "Cut", rank)["MRPC"].text for rank in "124"] == ["40.00"] * 3
    assert [row(table, "Each", rank)["MRPC"].text for rank in "124"] == ["10.00", "20.00", "40.00"]


def test_what_is_missing_is_a_dash_and_so_is_every_average_over_it(tmp_path: Path) -> None:
    write_run(tmp_path, method="full", scores={0: 0.9})
    write_run(tmp_path, "rte", "full", seed=1, scores={0: 0.7}, record={"status": "failed"})
    write_run(tmp_path, max_rank=4, scores={1: 0.5, 2: None, 4: None})
    table = tables_of(tmp_path)[0]
    cells = row(table, "Full")
    assert (cells["MRPC"].text, cells["RTE"].text, cells["Average"].text) == ("90.00", DASH, DASH)
    assert [row(table, "Any", rank)["MRPC"].text for rank in "124"] == ["50.00", DASH, DASH]
    assert row(table, "Any", "best")["MRPC"].text == DASH, (
        "the best of ranks that are not all there"
    )
    assert {cell.text for cell in row(table, "Cut", "4").values()} == {DASH}


def test_the_average_is_over_all_tasks(tmp_path: Path) -> None:
    for task, score in (("mrpc", 0.9), ("rte", 0.7)):
        write_run(tmp_path, task, "full", scores={0: score})
    assert row(tables_of(tmp_path)[0], "Full")["Average"].text == "80.00"


def test_best_of_a_block_is_bold_whether_high_or_low_is_good(tmp_path: Path) -> None:
    for method, bleu, ter in (("lora", 40.0, 50.0), ("dylora", 45.0, 40.0)):
        scores = {r: {"BLEU": bleu, "METEOR": 39.001 * r, "TER": ter} for r in (1, 2, 4)}
        write_run(tmp_path, "dart", method, model="gpt2_medium", max_rank=4, scores=scores)
    columns = {f"dart.{metric}": metric for metric in GENERATION["dart"]}
    layout = {"model": "gpt2_medium", "architecture": "decoder", "columns": columns}
    table = tables_of(tmp_path, **layout)[0]
    cut, dynamic = row(table, "Cut", "1"), row(table, "Any", "1")
    assert not cut["BLEU"].best and not cut["TER"].best
    assert dynamic["BLEU"].best and dynamic["TER"].best
    assert not dynamic["METEOR"].best and not cut["METEOR"].best, "equal as printed: no best"


def test_the_best_row_is_the_best_of_all_ranks_and_seeds_with_its_rank(tmp_path: Path) -> None:
    for seed, scores in ((1, (0.5, 0.6, 0.7)), (2, (0.5, 0.9, 0.6))):
        by_rank = dict(zip((1, 2, 4), scores, strict=True))
        write_run(tmp_path, seed=seed, max_rank=4, scores=by_rank)
    best = row(tables_of(tmp_path)[0], "Any", "best")["MRPC"]
    assert best.text == "90.00 (2)" and [run.seed for run in best.runs] == [2]


def test_a_mean_over_ranks_is_taken_for_each_seed_that_has_them_all(tmp_path: Path) -> None:
    for seed, scores in ((1, {1: 0.5, 2: 0.7}), (2, {1: 0.6, 2: 0.8}), (3, {1: 0.9, 2: None})):
        write_run(tmp_path, seed=seed, max_rank=2, scores=scores)
    arms = [{"name": "Any", "match": {"method.name": "dylora"}, "mean_of": [1, 2]}]
    cells = row(tables_of(tmp_path, arms=arms, seconds=True)[0], "Any", "mean")
    assert cells["MRPC"].text == "65.00 ± 7.07" and cells["Seeds"].text == "2"
    assert cells["Training, s"].text == "101.50 ± 0.71"


def test_a_block_has_the_published_rows_of_its_arms_beside_ours(tmp_path: Path) -> None:
    write_run(tmp_path, model="minilm", max_rank=4, scores=dict.fromkeys((1, 2, 4), 0.5))
    write_run(tmp_path, model="minilm", protocol=Protocol.released, max_rank=4)
    rows = [
        Published(["roberta_base"], name, rank, "s", Confidence.primary, {"mrpc.accuracy": "84.2"})
        for name, rank in (("Any", "4"), ("Any", "1"), ("Cut", "1"), ("Else", "1"))
    ]
    rows[1].notes["mrpc.accuracy"] = "the cells give 84.1"
    [empty, table, _, released, _] = tables_of(tmp_path, {"paper": rows}, published=["paper"])
    text = markdown("x", [table])
    lines = [line.split(" | ")[:3] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [line[0].strip("|* ") + " " + line[1] for line in lines[1:7]] == [
        r"published: Cut, RoBERTa-base \[1\] 1",
        "Cut, ours (MiniLM) 1",
        "Each, ours (MiniLM) 1",
        r"published: Any, RoBERTa-base \[1\] 1",
        "Any, ours (MiniLM) 1",
        "Cut, ours (MiniLM) 2",
    ]
    assert lines[-1][0] == r"| *published: Else, RoBERTa-base \[1\]*", "of no arm: at the end"
    assert "*84.2*(a)" in text and "- (a) the cells give 84.1." in text
    assert not any(r.published for r in released.rows), "published rows beside another protocol"
    assert [r.name for r in empty.rows] == ["Cut", "Any", "Any", "Else"], "a page of dashes"
    assert any("No run of this table" in note for note in empty.notes)


def test_ranks_can_be_columns(tmp_path: Path) -> None:
    for rank in (1, 2):
        write_run(tmp_path, method="lora", max_rank=rank, scores={rank: rank / 10})
    published = [
        Published(
            ["roberta_base"], "Each", str(rank), "s", Confidence.primary, {"mrpc.accuracy": t}
        )
        for rank, t in ((1, "87.1"), (4, "88.2"))
    ]
    arms = [table_records.ARMS[2]]
    table = tables_of(
        tmp_path, {"p": published}, published=["p"], arms=arms, ranks_as_columns=True
    )[0]
    assert list(table.header) == ["Method", "Task", "1", "2", "4", "Seeds"]
    texts = [[r.detail, *(cell.text for cell in r.cells)] for r in table.rows]
    assert texts[0] == ["MRPC", "87.1", DASH, "88.2", DASH]
    assert texts[1] == ["MRPC", "10.00", "20.00", DASH, "1"]


def test_parameters_are_those_of_the_rank_with_the_head(tmp_path: Path) -> None:
    parameters = {"total": 124_000_000, "trained": 887_042, "low_rank": 294_912}
    write_run(tmp_path, max_rank=8, record={"parameters": parameters})
    write_run(
        tmp_path,
        method="full",
        scores={0: 0.9},
        record={"parameters": {**parameters, "trained": 124_647_170}},
    )
    arms = [
        {"name": "Any", "match": {"method.name": "dylora"}, "ranks": [1, 8]},
        {"name": "Full", "match": {"method.name": "full"}},
    ]
    table = tables_of(tmp_path, arms=arms, parameters=True)[0]
    found = [
        row(table, *place)["Parameters"].text for place in (("Any", "1"), ("Any", "8"), ("Full",))
    ]
    assert found == ["0.629M", "0.887M", "125M"]


def test_rescaled_scores_of_a_truncated_lora_have_rows_of_their_own(tmp_path: Path) -> None:
    rescaled = {"truncations": {"rescaled": {"1": {"accuracy": 0.4}, "2": {"accuracy": 0.5}}}}
    write_run(tmp_path, method="lora", max_rank=2, scores={1: 0.6, 2: 0.7}, record=rescaled)
    write_run(tmp_path, "rte", method="lora", max_rank=2, scores={1: 0.6, 2: 0.7})
    match = {"method.name": "lora"}
    arms = [
        {"name": "Cut", "match": match, "ranks": [1, 2]},
        {"name": "Rescaled", "match": match, "ranks": [1, 2], "truncation": "rescaled"},
    ]
    table = tables_of(tmp_path, arms=arms)[0]
    assert [row(table, "Cut", rank)["MRPC"].text for rank in "12"] == ["60.00", "70.00"]
    assert [row(table, "Rescaled", rank)["MRPC"].text for rank in "12"] == ["40.00", "50.00"]
    assert row(table, "Rescaled", "1")["RTE"].text == DASH, "an older record has none"


def test_fractions_are_shown_as_the_papers_print_them(tmp_path: Path) -> None:
    write_run(
        tmp_path, "dart", "full", model="gpt2_medium", scores={0: {"BLEU": 46.2, "TER": 46.4}}
    )
    columns = {"dart.BLEU": "BLEU", "dart.TER": "TER"}
    layout = {"model": "gpt2_medium", "architecture": "decoder", "columns": columns}
    table = tables_of(tmp_path, average=False, fractions=["dart.TER"], **layout)[0]
    assert [row(table, "Full")[name].text for name in ("BLEU", "TER")] == ["46.20", "0.46"]


def test_a_run_has_one_area_whatever_ranks_an_experiment_shows(tmp_path: Path) -> None:
    write_run(tmp_path, max_rank=4, scores={1: 0.5, 2: 0.9, 3: 0.9, 4: 0.9})
    match = {"method.name": "dylora"}
    areas = [
        row(
            tables_of(tmp_path, arms=[{"name": "Any", "match": match, "ranks": ranks}])[1],
            "Any",
            "MRPC",
        )["AURAC"].value
        for ranks in ([1, 4], [1, 2, 3, 4])
    ]
    assert areas[0] == areas[1] == pytest.approx((70 + 90 + 90) / 3)


def test_another_tasks_runs_bring_no_columns(tmp_path: Path) -> None:
    write_run(tmp_path, "e2e", "full", model="gpt2_novels", scores={0: 30.0})
    layout = {
        "model": "gpt2_medium",
        "architecture": "decoder",
        "columns": {"dart.BLEU": "DART BLEU"},
    }
    assert [table.model for table in tables_of(tmp_path, average=False, **layout)] == [
        "gpt2_medium"
    ]


def test_the_range_of_ranks_has_area_worst_and_smallest_good_rank(tmp_path: Path) -> None:
    write_run(tmp_path, max_rank=4, scores={1: 0.80, 2: 0.896, 4: 0.90})
    table = tables_of(tmp_path)[-1]
    cells = row(table, "Any", "MRPC")
    assert (cells["Best"].text, cells["Worst"].text) == ("90.00", "80.00")
    linear = ((80 + 89.6) / 2 * 1 + (89.6 + 90) / 2 * 2) / 3
    log2 = ((80 + 89.6) / 2 + (89.6 + 90) / 2) / 2
    assert cells["AURAC"].value == pytest.approx(linear)
    assert cells["AURAC (log2)"].value == pytest.approx(log2)
    assert cells["Smallest rank within 0.5"].text == "2"


def test_each_model_has_its_table_and_the_papers_is_first_even_without_runs(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, model="minilm", method="full", scores={0: 0.7})
    write_run(tmp_path, model="a_model", method="full", scores={0: 0.6})
    tables = tables_of(tmp_path)
    assert [table.model for table in tables] == ["roberta_base", "a_model", "minilm"]
    assert not tables[0].measured and tables[2].measured
    assert row(tables[2], "Full")["MRPC"].text == "70.00"


def test_other_tasks_make_the_columns_where_the_papers_are_absent(tmp_path: Path) -> None:
    for task in ("toy_pair", "toy_similarity"):
        write_run(tmp_path, task, "full", model="tiny_roberta", scores={0: 0.7})
    write_run(tmp_path, "toy_e2e", "full", model="tiny_gpt2", scores={0: 30.0})
    table = tables_of(tmp_path)[1]
    assert list(table.header[2:4]) == ["toy_pair accuracy", "toy_similarity accuracy"]
    assert row(table, "Full")["Average"].text == "70.00"
    assert "None of this experiment's own tasks" in table.notes[0]


def test_trials_are_in_tables_of_their_own_and_say_so(tmp_path: Path) -> None:
    write_run(tmp_path, method="full", scores={0: 0.9})
    write_run(tmp_path, method="full", scores={0: 0.1}, task__max_train_rows=64)
    first, second = tables_of(tmp_path)
    assert row(first, "Full")["MRPC"].text == "90.00"
    assert row(second, "Full")["MRPC"].text == "10.00"
    assert "trial" in second.title and "task.max_train_rows=64" in second.title


def test_runs_with_other_settings_are_never_mixed_and_are_named(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, method="full", seed=seed, scores={0: 0.9})
    other = write_run(tmp_path, method="full", seed=3, scores={0: 0.1}, train__learning_rate=1e-5)
    table = tables_of(tmp_path)[0]
    assert row(table, "Full")["MRPC"].text == "90.00 ± 0.00"
    note = next(note for note in table.notes if other.name in note)
    assert "train.learning_rate=1e-05" in note


def test_arms_under_different_settings_are_pointed_out(tmp_path: Path) -> None:
    write_run(tmp_path, method="full", scores={0: 0.9})
    write_run(tmp_path, method="lora", max_rank=4)
    write_run(tmp_path, max_rank=4, train__epochs=30)
    assert "mrpc: train.epochs is 3, but 30 for Any." in tables_of(tmp_path)[0].notes


def paired_runs(results: Path, wrong: int, seed: int = 1) -> None:
    """DyLoRA all right, truncated LoRA with `wrong` mistakes among 100 at rank 1, none at 2."""
    labels = ["yes", "no"] * 50
    flipped = [{"yes": "no", "no": "yes"}[label] for label in labels]
    cut = write_run(results, method="lora", seed=seed, max_rank=4)
    any_rank = write_run(results, seed=seed, max_rank=4)
    write_outputs(cut, labels, {1: flipped[:wrong] + labels[wrong:], 2: labels})
    write_outputs(any_rank, labels, {1: labels, 2: labels})


def test_texts_are_tested_by_the_features_that_their_runs_kept(tmp_path: Path) -> None:
    for method, matches in (("dylora", 9), ("lora", 6)):
        scores = {1: {"BLEU": 10.0 * matches}}
        run = write_run(tmp_path, "toy_e2e", method, model="tiny_gpt2", max_rank=4, scores=scores)
        (run / "outputs").mkdir()
        line = ",".join(map(str, [10, 10, matches, *[matches - 3] * 3, 10, 9, 8, 7]))
        (run / "outputs" / "validation.rank1.BLEU.csv").write_text(f"{line}\n" * 40)
    layout = {"model": "tiny_gpt2", "architecture": "decoder", "columns": {"toy_e2e.BLEU": "BLEU"}}
    made, _ = build_tables(
        experiment(tmp_path / "e", **layout), load_records(tmp_path / "records")[0], {}
    )
    (test,) = [test for test in made.tests if test.rank == 1]
    assert test.comparison is not None and test.comparison.significant
    assert "†" in row(made.tables[0], "Any", "1")["BLEU"].marks


def test_a_truncation_is_tested_by_its_own_predictions(tmp_path: Path) -> None:
    labels = ["yes", "no"] * 50
    flipped = ["no", "yes"] * 50
    svd = {"truncations": {"svd": {str(rank): {"accuracy": 0.9} for rank in (1, 2)}}}
    run = write_run(tmp_path, method="lora", max_rank=2, record=svd)
    write_outputs(run, labels, {1: flipped[:20] + labels[20:], 2: flipped[:5] + labels[5:]})
    write_outputs(run, labels, {1: labels}, truncation="svd")
    match = {"method.name": "lora"}
    arms = [
        {"name": "Cut", "match": match, "ranks": [1, 2]},
        {
            "name": "Sorted",
            "match": match,
            "ranks": [1, 2],
            "truncation": "svd",
            "against": ["Cut"],
        },
    ]
    made, _ = build_tables(
        experiment(tmp_path / "e", arms=arms), load_records(tmp_path / "records")[0], {}
    )
    differences = {t.rank: t.comparison.difference for t in made.tests if t.comparison is not None}
    assert differences == {1: pytest.approx(0.2), 2: 0}, "at max_rank both are the run itself"


def test_a_mark_tells_what_differs_by_the_paired_tests(tmp_path: Path) -> None:
    paired_runs(tmp_path, wrong=20)
    made, _ = build_tables(experiment(tmp_path / "e"), load_records(tmp_path / "records")[0], {})
    table = made.tables[0]
    assert row(table, "Any", "1")["MRPC"].marks == "†"
    assert row(table, "Any", "2")["MRPC"].marks == ""
    assert any("† differs from Cut" in note for note in table.notes)
    paths = write_tables(made, tmp_path / "tables")
    assert paths[-1].name == "small_tests.csv"
    first, second, third = csv.DictReader(paths[-1].read_text().splitlines())
    assert (first["rank"], first["difference"], first["examples"]) == ("1", "20", "100")
    assert float(first["mcnemar_p"]) == pytest.approx(2 / 2**20, rel=1e-3)
    assert float(second["randomization_p"]) == 1
    assert third["mcnemar_p"] == "", "rank 4 has no predictions"


@pytest.mark.parametrize("damage", ["short", "strange", "labels"])
def test_predictions_that_do_not_fit_give_no_test(tmp_path: Path, damage: str) -> None:
    paired_runs(tmp_path, wrong=20)
    folder = next((tmp_path / "records").glob("*-lora-*")) / "outputs"
    if damage == "short":
        (folder / "validation.rank1.txt").write_text("yes\n")
    elif damage == "strange":
        (folder / "validation.rank1.txt").write_text("maybe\n" * 100)
    else:
        (folder / "validation.labels.txt").write_text("yes\n" * 100)
    table = tables_of(tmp_path)[0]
    assert row(table, "Any", "1")["MRPC"].marks == ""
    assert any("paired tests lack predictions" in note for note in table.notes)


def test_time_counts_evaluation_and_needs_every_rank_on_one_device(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, seed=seed, max_rank=2)  # 100 + seed + 8 seconds
        for rank in (1, 2):
            other = {"device": {"name": "H100"}} if (seed, rank) == (2, 1) else {}
            write_run(tmp_path, method="lora", seed=seed, max_rank=rank, record=other)
    layout = {
        "kind": "time",
        "title": "Time",
        "model": "roberta_base",
        "architecture": "encoder",
        "columns": {"mrpc": "MRPC"},
        "once": {"name": "Any", "match": {"method.name": "dylora"}, "ranks": [1, 2]},
        "sweep": {
            "name": "Each",
            "match": {"method.name": "lora"},
            "ranks": [1, 2],
            "own_rank": True,
        },
    }
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "time.yaml").write_text(yaml.safe_dump({"layout": layout}))
    [found], _ = load_experiments(folder, known_tasks())
    made, _ = build_tables(found, load_records(tmp_path / "records")[0], {})
    cells = row(made.tables[0], "MRPC", "cpu, threads: 1")
    sweep = (101 + 8) + (101 + 8 / 2)  # rank 2 is charged for one of its two ranks
    assert cells["Each at ranks 1-2, s"].value == pytest.approx(sweep)
    assert cells["Ratio"].value == pytest.approx(sweep / (101 + 8))
    assert cells["Ratio"].summary and cells["Ratio"].summary.n == 1, "seed 2 mixes two devices"
    assert cells["Any once, s"].summary and cells["Any once, s"].summary.n == 2


def test_tables_need_no_torch() -> None:
    code = "import sys, dylora.results.tables, dylora.results.deploy; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.stdout.split() == [b"False"], done.stderr
