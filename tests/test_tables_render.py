"""Published values, and tables as Markdown, LaTeX and CSV."""

import csv
import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from table_records import row, tables_of, write_outputs, write_run

from dylora.results.layout import known_tasks, load_experiments
from dylora.results.published import Published
from dylora.results.stats import Comparison
from dylora.results.tables.cells import Cell, Row, Table
from dylora.results.tables.paired import PairedTest
from dylora.results.tables.render import csv_table, csv_tests, latex, markdown
from dylora.results.tables.selection import Column

ROOT = Path(__file__).parents[1]
PUBLISHED = Published(
    models=["roberta_base"],
    name="Full",
    source="Some paper & its Table 2",
    confidence="medium",  # type: ignore[arg-type]
    values={"mrpc.accuracy": "99.9±.3", "average": "98.7"},
)


def test_a_published_value_cannot_be_mistaken_for_a_measured_one(tmp_path: Path) -> None:
    write_run(tmp_path, method="full", scores={0: 0.5})
    write_run(tmp_path, method="lora", max_rank=4, scores={1: 0.5, 2: 0.5, 4: 0.5})
    write_run(tmp_path, max_rank=4, scores={1: 0.5, 2: 0.5, 4: 0.6})
    [table, *_] = tables_of(tmp_path, {"paper": [PUBLISHED]}, published=["paper"])
    cells = [cell for r in table.rows if r.published for cell in r.cells]
    assert "99.9 ± .3" in [cell.text for cell in cells]
    assert not any(cell.best or cell.runs or cell.marks or cell.value for cell in cells)
    assert row(table, "Any", "4")["MRPC"].best, "a published value took the bold from the measured"

    [line] = [line for line in markdown("small", [table]).splitlines() if "99.9" in line]
    assert line.startswith(r"| *published: Full \[1\]*") and "*99.9 ± .3*" in line
    assert "Some paper & its Table 2 (confidence: medium)" in markdown("small", [table])
    [line] = [line for line in latex("small", [table]).splitlines() if "99.9" in line]
    assert line.startswith(r"\textit{published: Full [1]}")
    lines = list(csv.DictReader(io.StringIO(csv_table("small", [table]))))
    for line in lines:
        from_paper = line["text"] in ("99.9 ± .3", "98.7")
        assert (line["origin"] == "published") == (line["source"] != "")
        assert not from_paper or line["origin"] == "published"
        assert line["origin"] == "measured" or line["value"] == ""


def test_published_values_stand_beside_other_models_by_name_but_never_beside_trials(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, model="minilm", method="full", scores={0: 0.5})
    write_run(tmp_path, method="full", scores={0: 0.5}, train__max_steps=8)
    tables = tables_of(tmp_path, {"paper": [PUBLISHED]}, published=["paper"])
    shown = [[r.name for r in table.rows if r.published] for table in tables]
    assert [t.title.split("(")[1].split(")")[0][:46] for t in tables] == [
        "RoBERTa-base, protocol=paper",
        "MiniLM, protocol=paper",
        "RoBERTa-base, protocol=paper, trial runs with ",
    ]
    assert shown == [["Full"], ["Full, RoBERTa-base"], []]


def awkward() -> Table:
    cells = [Cell("1.0 ± 0.1", 1.0, best=True, marks="†‡"), Cell()]
    return Table(
        title="50% of A_B & C# {x} ~ ^ \\ $ <b> é 漢",
        model="m",
        header=["Method", "Rank", "a_b|c", "d*e"],
        rows=[Row("_x_ [1] | `y`", "1-8", cells), Row("z", "", [Cell("x"), Cell()], PUBLISHED)],
        notes=["p < 0.05, 100% & more_or_less"],
    )


def test_text_cannot_break_out_of_a_markdown_cell() -> None:
    lines = [line for line in markdown("odd", [awkward()]).splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in lines)
    assert r"| **1.0 ± 0.1**†‡ |" in lines[2] and r"\_x\_ \[1\] \| \`y\`" in lines[2]


def compile_latex(text: str, folder: Path) -> None:
    program = next((p for p in ("pdflatex", "tectonic") if shutil.which(p)), None)
    if program is None:
        pytest.skip("no TeX here (pdflatex or tectonic); apt-get install texlive-latex-recommended")
    body = "\\documentclass{article}\\usepackage{booktabs}\\usepackage{graphicx}\n"
    body += "\\begin{document}\n" + text.replace("\\begin{table}", "\\begin{table}[p]")
    (folder / "paper.tex").write_text(body + "\n\\end{document}\n")
    halt = ["-interaction=nonstopmode", "-halt-on-error"] if program == "pdflatex" else []
    done = subprocess.run(
        [program, *halt, "paper.tex"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "paper.pdf").stat().st_size > 0


def test_latex_compiles_whatever_the_names_are(tmp_path: Path) -> None:
    text = latex("odd_name", [awkward()])
    assert r"\textbf{1.0 $\pm$ 0.1}\textsuperscript{\dag{}\ddag{}}" in text
    assert r"50\% of A\_B \& C\# \{x\}" in text and "[U+6F22]" in text
    compile_latex(text, tmp_path)


def glue_records(results: Path, model: str = "roberta_base", seeds: int = 5) -> int:
    """Runs of Tables 2 and A with the predictions of 400 examples; returns how many."""
    rng = np.random.default_rng(0)
    columns = next(
        e for e in load_experiments(ROOT / "experiments", known_tasks())[0] if e.name == "table2"
    ).layout.columns  # type: ignore[union-attr]
    labels = rng.choice(["no", "yes"], 400)
    numbers = rng.uniform(0, 5, 400)
    count = 0
    for task in (key.split(".")[0] for key in columns):
        for seed in range(1, seeds + 1):
            for method, rank in [("full", 8), ("dylora", 8), *(("lora", b) for b in range(1, 9))]:
                folder = write_run(results, task, method, seed, model, rank)
                count += 1
                ranks = range(1, rank + 1) if method != "full" else [0]
                if task == "stsb":
                    noisy = {r: numbers + rng.normal(size=400) / r for r in (r or 1 for r in ranks)}
                    lines = {r: [f"{x:.7g}" for x in noisy[r or 1]] for r in ranks}
                    write_outputs(folder, [f"{x:.7g}" for x in numbers], lines)
                else:
                    lines = {r: list(np.where(rng.random(400) < 0.1, "no", labels)) for r in ranks}
                    write_outputs(folder, list(labels), lines)
    return count


@pytest.mark.slow
def test_a_thousand_records_take_seconds_and_every_experiment_compiles(tmp_path: Path) -> None:
    """Under 5 seconds on a free core; the limit here leaves room for a busy machine."""
    count = glue_records(tmp_path) + glue_records(tmp_path, "minilm")
    for task in ("e2e", "dart", "webnlg"):
        for seed in (1, 2, 3):
            for method, rank in [("full", 4), ("dylora", 4), *(("lora", b) for b in (1, 2, 3, 4))]:
                ranks = range(1, rank + 1) if method != "full" else [0]
                scores = {r: 50.0 + r for r in ranks}
                write_run(tmp_path, task, method, seed, "gpt2_medium", rank, scores)
                count += 1
    for seed in range(6, 6 + (1000 - count + 7) // 8):
        for rank in range(1, 9):
            write_run(tmp_path, "rte", "lora", seed, max_rank=rank)
    records = len(list((tmp_path / "records").iterdir()))
    assert records >= 1000
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "scripts/make_tables.py", f"paths.results={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    assert seconds < 20, f"{seconds:.1f} s for {records} records"
    text = "\n".join(path.read_text() for path in sorted((tmp_path / "tables").glob("*.tex")))
    compile_latex(text, tmp_path)
    table = (tmp_path / "tables" / "table2.md").read_text()
    assert "| DyLoRA, ours (RoBERTa-base) | 8 |" in table and "*54.90*" in table


def test_a_paired_difference_is_in_the_unit_of_its_metric() -> None:
    measured = Comparison(0.25, 0.1, 0.4, 0.01, 0.01, None, examples=9, seeds=1)
    tests = [
        PairedTest("gpt2", Column("task", metric, metric), 1, "A", "B", measured)
        for metric in ("accuracy", "NIST")
    ]
    rows = list(csv.DictReader(csv_tests("small", tests).splitlines()))
    assert [row["difference"] for row in rows] == ["25", "0.25"]
