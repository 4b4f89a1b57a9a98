"""examples/rank_per_layer.py: score against parameters, of uniform ranks and of chosen ones."""

import csv
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_run import config, make_home

from dylora.training import experiment

SCRIPT = str(ROOT / "examples" / "rank_per_layer.py")


def test_the_example_scores_each_budget_spent_in_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path)
    experiment.run(config(home, tmp_path / "results"), "python run.py task=custom")
    (record,) = (tmp_path / "results" / "records").iterdir()
    output = tmp_path / "made"
    words = [f"record={record}", "ranks=[2]", "rows=20", f"output={output}"]
    monkeypatch.setattr(sys, "argv", [SCRIPT, *words])
    runpy.run_path(SCRIPT, run_name="__main__")

    with (output / "points.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    ways = [(point["way"], point["budget"]) for point in points]
    assert ways == [("uniform", b) for b in "123"] + [("energy", "2"), ("validation", "2")]
    uniform = {p["budget"]: int(p["parameters"]) for p in points if p["way"] == "uniform"}
    for point in points:
        assert int(point["parameters"]) <= uniform[point["budget"]]
        assert 0 <= float(point["accuracy"]) <= 1
        assert len(point["ranks"].split()) == 4  # query and value of two layers
    assert (output / "score_by_parameters.svg").read_text().count("<path") > 3
