"""The published numbers in results/reference/, against a second transcription and their sums."""

import re
from pathlib import Path
from statistics import fmean

import pytest

from dylora.results.published import load_published

ROOT = Path(__file__).parents[1]
PUBLISHED, PROBLEMS = load_published(ROOT / "results" / "reference")
COLUMNS = {
    "mnli": "mnli.accuracy",
    "sst2": "sst2.accuracy",
    "mrpc_f1": "mrpc.f1",
    "cola": "cola.matthews_correlation",
    "qnli": "qnli.accuracy",
    "qqp": "qqp.accuracy",
    "rte": "rte.accuracy",
    "stsb": "stsb.pearson",
    "avg": "average",
    **{"SST-2": "sst2.accuracy", "MRPC F1": "mrpc.f1", "QNLI": "qnli.accuracy"},
    **{"CoLA": "cola.matthews_correlation", "RTE": "rte.accuracy", "STS-B": "stsb.pearson"},
    **{"SST-2 (r)": "sst2.accuracy", "MRPC (r)": "mrpc.accuracy", "time": "time"},
    **{"params": "parameters", "BLEU": "e2e.BLEU", "NIST": "e2e.NIST", "MET": "e2e.METEOR"},
    **{"ROUGE-L": "e2e.ROUGE_L", "CIDEr": "e2e.CIDEr"},
    **{"QQP acc": "qqp.accuracy", "SST-2 acc": "sst2.accuracy", "MRPC acc": "mrpc.accuracy"},
    "CoLA MCC": "cola.matthews_correlation",
}
TABLE9 = ["dart.BLEU", "dart.TER", "webnlg.BLEU", "webnlg.TER"]
WORKSHOP = {"MNLI": "mnli.accuracy", "MRPC": "mrpc.accuracy", "QQP": "qqp.accuracy"}
ROUNDING = 0.025  # of an average of values that are rounded themselves


def transcribed(heading: str) -> list[list[str]]:
    """Rows of cells, the header first."""
    text = (ROOT / "tests" / "data" / "paper_tables.md").read_text()
    [section] = re.findall(rf"^## {heading}\n((?:\|.*\n)+)", text, re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]


def arm(label: str) -> str:
    """Our name of a row as the transcription labels it."""
    frozen = "frozen" in label.lower()
    if label.lower().startswith(("fine", "full")):
        return "Fine Tune"
    if "search" in label.lower():
        return label
    if label.startswith("DyLoRA") or frozen:
        return "DyLoRA (Frozen)" if frozen else "DyLoRA"
    return "LoRA" if label.startswith("LoRA") else label


def found(name: str) -> dict[tuple[str, str, str], str]:
    """(arm, rank, column) -> text of a file."""
    return {(r.name, r.rank, c): text for r in PUBLISHED[name] for c, text in r.values.items()}


def test_every_file_can_be_used() -> None:
    assert not PROBLEMS


def test_table1_is_as_transcribed() -> None:
    (_, *ranks), *rows = transcribed("Table 1")
    expected = {
        ("LoRA", rank, COLUMNS[task]): text
        for task, *texts in rows
        for rank, text in zip(ranks, texts, strict=True)
    }
    assert found("table1") == expected


@pytest.mark.parametrize("name", ["table2", "table6"])
def test_tables_by_rank_and_model_are_as_transcribed(name: str) -> None:
    (_, _, *keys), *rows = transcribed(name.replace("table", "Table "))
    expected = {
        (arm(model), rank if rank not in ("full", "-") else "", COLUMNS[key]): text
        for rank, model, *texts in rows
        for key, text in zip(keys, texts, strict=True)
    }
    assert found(name) == expected


def test_table3_is_as_transcribed() -> None:
    (_, *keys), *rows = transcribed("Table 3")
    expected = {}
    for label, *texts in rows:
        model, rank = re.fullmatch(r"(.*?)\*?(?: \((\d)\))?", label).groups("")  # type: ignore[union-attr]
        for key, text in zip(keys, texts, strict=True):
            expected[arm(model), rank, COLUMNS[key]] = text
    assert found("table3") == expected


def test_table4_is_as_transcribed() -> None:
    (_, _, _, *keys), *rows = transcribed("Table 4")
    drawn = {"geometric .15": "Geometric (p = 0.15)", "uniform": "Uniform"}
    expected = {
        (f"{drawn[p]}, {update}", rank, COLUMNS[key]): text
        for rank, p, update, *texts in rows
        for key, text in zip(keys, texts, strict=True)
    }
    assert found("table4") == expected


def test_table5_is_as_transcribed() -> None:
    (_, _, *keys), *rows = transcribed("Table 5")
    expected = {
        (model, rank, COLUMNS[key]): text.replace(" ", "")
        for rank, model, *texts in rows
        for key, text in zip(keys, texts, strict=True)
    }
    assert found("table5") == expected


def test_table9_is_as_transcribed() -> None:
    _, *rows = transcribed("Table 9")
    expected = {
        (arm(model), rank.strip("-"), key): text
        for rank, model, *texts in rows
        for key, text in zip(TABLE9, texts, strict=True)
        if text
    }
    assert found("table9") == expected


def test_the_workshops_table_is_as_transcribed() -> None:
    (_, *keys), *rows = transcribed("Workshop")
    expected = {}
    for label, *texts in rows:
        place = "DyLoRA" if "DyLoRA" in label else "LoRA", "mean" if "mean" in label else "8"
        for key, text in zip(keys, texts, strict=True):
            expected[(*place, WORKSHOP.get(key) or COLUMNS[key])] = text
    assert found("workshop") == expected


def test_times_are_as_transcribed() -> None:
    assert found("table7") == {
        ("Individual loss", "mean", "seconds"): "645.82",
        ("Individual loss", "mean", "cola.matthews_correlation"): "52.64",
        ("Summation loss", "mean", "seconds"): "1175.69",
        ("Summation loss", "mean", "cola.matthews_correlation"): "54.12",
    }
    once, sweep = (PUBLISHED["appendix_a"][0].number(key) for key in ("lora_once", "lora_sweep"))
    assert once == 399.95 and sweep == pytest.approx(8 * once)


@pytest.mark.parametrize(
    "name", ["table2", "table3", "table4", "workshop", "glue"], ids=lambda name: name
)
def test_each_average_is_that_of_its_cells_or_has_a_note(name: str) -> None:
    odd = []
    for row in PUBLISHED[name]:
        cells = [row.number(c) for c in row.values if c not in ("average", "parameters")]
        mean, printed = fmean(cells), row.number("average")  # type: ignore[arg-type]
        digits = len(row.values["average"].partition(".")[2])
        assert printed is not None
        if abs(mean - printed) > (ROUNDING if digits == 2 else 0.06):
            odd.append((row.name, row.rank, printed, round(mean, 2)))
            assert f"{mean:.2f}" in row.notes.get("average", ""), row
    assert odd == ([("LoRA", "1", 54.90, 55.52)] if name == "table2" else [])


def test_what_two_tables_of_the_paper_share_is_equal() -> None:
    second = found("table2")
    for (name, rank, column), text in found("table3").items():
        if name in ("DyLoRA", "Fine Tune") and column not in ("average", "parameters"):
            assert second[name, rank, column] == text
    drawn = {"Uniform, all": "DyLoRA", "Uniform, frozen": "DyLoRA (Frozen)"}
    for (name, rank, column), text in found("table4").items():
        if name in drawn and column != "average":
            assert second[drawn[name], rank, column] == text


def test_a_best_row_is_above_every_mean_of_its_arm() -> None:
    second = found("table2")
    for (name, rank, column), text in second.items():
        if rank == "best" and column != "average":
            means = [
                float(t.split("±")[0])
                for (n, r, c), t in second.items()
                if (n, c) == (name, column) and r not in ("best", "")
            ]
            assert float(text.split("(")[0]) >= max(means)


def test_where_the_paper_disagrees_with_itself_the_cell_has_a_note() -> None:
    noted = {
        (name, row.name, row.rank, column)
        for name in ("table2", "table5", "table6")
        for row in PUBLISHED[name]
        for column in row.notes
    }
    assert noted >= {
        ("table2", "LoRA", "1", "average"),
        ("table5", "LoRA (Search)", "32", "sst2.accuracy"),
        ("table5", "LoRA (Search)", "32", "mrpc.accuracy"),
        ("table6", "DyLoRA", "2", "parameters"),
    }
    first = found("table1")
    searched = {row.rank: row for row in PUBLISHED["table5"] if row.name == "LoRA (Search)"}
    assert first["LoRA", "32", "sst2.accuracy"] != searched["32"].values["sst2.accuracy"]


def test_qdyloras_rows_have_every_rank() -> None:
    rows = [row for row in PUBLISHED["qdylora"] if "gsm8k.exact_match" in row.values]
    curve = {
        name: [r.number("gsm8k.exact_match") for r in rows if r.name == name]
        for name in ("QLoRA", "QDyLoRA")
    }
    assert curve["QLoRA"] == [8.9, 8.91, 8.9, 15.1, 20.5, 22.6, 28.1]
    assert curve["QDyLoRA"] == [21.4, 25.3, 28.2, 30.6, 29.8, 28.5, 27.4]
    assert [r.rank for r in rows][::2] == ["1", "2", "4", "8", "16", "32", "64"]
