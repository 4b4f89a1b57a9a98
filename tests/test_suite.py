"""From one command to a publication: an experiment's runs, its table, figures and report."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_an_experiment_runs_from_one_command_to_table_figures_and_report(tmp_path: Path) -> None:
    results = f"paths.results={tmp_path}"
    assert "6 of 6 runs done, 0 failed" in run(
        "run.py", "experiments=table6", "scale=smoke", results
    )
    records = [json.loads(path.read_text()) for path in tmp_path.glob("records/*/record.json")]
    assert {r["method"] for r in records} == {"dylora", "lora", "full"}
    assert all(r["task"] == "toy_e2e" and r["status"] == "done" for r in records)

    run("scripts/make_tables.py", results)
    table = (tmp_path / "tables" / "table6.md").read_text()
    dylora = [
        record["scores"]
        for record in records
        if record["method"] == "dylora" and not record["config"]["method"]["frozen"]
    ]
    for rank in ("1", "2", "3", "4"):
        assert f"{mean(scores[rank]['BLEU'] for scores in dylora):.2f} ±" in table
    run("scripts/make_figures.py", results)
    assert list((tmp_path / "figures").glob("*.png"))
    run("scripts/make_report.py", results)
    assert "toy_e2e" in (tmp_path / "report.html").read_text()
    assert "6 finished" in run("scripts/make_tables.py", results)

    again = run("run.py", "experiments=table6", "scale=smoke", results)
    assert again.count("done already") == 6
