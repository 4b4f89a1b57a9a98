"""dry_run: what a command would run, its state and cost, whether it could; it starts nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_run import make_home, options
from table_records import settings, write_run

from dylora.results.plan import plan
from dylora.suite import hub
from dylora.suite.config import Config, PathsConfig
from dylora.tasks import base

ROOT = Path(__file__).parents[1]
PLACE = ("mrpc", "dylora", 1, "roberta_base", 8)  # of a run: task, method, seed, model, rank


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (hub, base):
        monkeypatch.setattr(module, "why_unreachable", lambda name, kind: f"no {kind} of {name}")


def config(home: Path, *place: Any, **changes: Any) -> Config:
    made = settings(*(place or PLACE), **changes)
    made.model.name_or_path = "ORG/base"
    made.paths = PathsConfig(str(home / "data"), str(home / "models"), str(home))
    return made


def record(home: Path, seed: int = 1) -> Path:
    """A finished run: 100 s of training in 3 epochs, 8 s of scoring its ranks."""
    times = {"times": {"prepare": 2.0, "train": 100.0, "evaluate": 8.0}}
    place = ("mrpc", "dylora", seed, "roberta_base", 8)
    return write_run(home, *place, None, times, model__name_or_path="ORG/base")


def test_the_state_is_that_of_exactly_this_run(tmp_path: Path) -> None:
    record(tmp_path)
    failed = record(tmp_path, seed=2)
    content = json.loads((failed / "record.json").read_text()) | {"status": "failed"}
    (failed / "record.json").write_text(json.dumps(content))
    configs = [config(tmp_path, "mrpc", "dylora", seed, "roberta_base", 8) for seed in (1, 2, 3)]
    other = config(tmp_path, train__learning_rate=1e-3)
    found = plan([*configs, other])
    assert [run.state for run in found.runs] == ["done", "failed", "missing", "missing"]
    assert "4 runs: 1 done, 1 failed, 2 missing" in found.text()


def test_hours_are_those_of_like_runs_by_epochs_and_ranks(tmp_path: Path) -> None:
    record(tmp_path)
    planned_run = config(tmp_path, "mrpc", "dylora", 2, "roberta_base", 4, train__epochs=30)
    [run] = plan([planned_run]).runs
    assert run.hours == pytest.approx((1000 + 8 * 4 / 8 + 2) / 3600)
    assert run.measured_on == "cpu, 1 thread"
    assert run.bytes == pytest.approx(4 * (10 + 80 * 4 / 8), abs=4000), "and the record"
    assert run.bytes > 4 * 50


def test_hours_are_unknown_where_no_run_of_the_model_is_done(tmp_path: Path) -> None:
    record(tmp_path)
    found = plan([config(tmp_path, *PLACE[:3], "minilm", 8)])
    [run] = found.runs
    assert run.hours is None and run.bytes is None and run.state == "missing"
    assert "unknown: the time of 1, as none like them is done" in found.text()
    assert "left: " not in found.text()


def test_models_and_data_are_looked_for_here_and_on_the_hub(tmp_path: Path) -> None:
    made = config(tmp_path)
    made.task.folder, made.task.files = "glue/MRPC", {"train": "train.tsv", "validation": "dev.tsv"}
    made.task.hub = "nyu-mll/glue"
    data, there = tmp_path / "data", "from the hub: no model of ORG/base"
    assert plan([made]).unreachable == {
        "model ORG/base": f"not in {tmp_path}/models, and {there}",
        "data of mrpc": f"there is no folder {data}/glue/MRPC, and from the hub: no dataset of "
        "nyu-mll/glue",
    }
    for file in ("models/base/config.json", "data/glue/MRPC/train.tsv"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    lacking = {"data of mrpc": f"{tmp_path}/data/glue/MRPC lacks dev.tsv"}
    assert plan([made]).unreachable == lacking
    (tmp_path / "data/glue/MRPC/dev.tsv").touch()
    found = plan([made])
    assert not found.unreachable and "models and data can be reached" in found.text()


def test_toy_models_and_data_are_always_at_hand(tmp_path: Path) -> None:
    made = config(tmp_path, "toy_pair", "dylora", 1, "tiny_roberta", 8)
    made.model.toy = True
    assert not plan([made]).unreachable


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "run.py", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_a_sweep_is_planned_without_torch_launcher_or_files(tmp_path: Path) -> None:
    home, results = make_home(tmp_path, 6, 4), tmp_path / "results"
    launcher = ["hydra/launcher=joblib", f"paths.cache={tmp_path / 'cache'}"]
    sweep = ["-m", *options(home, results), *launcher, "seed=1,2", "train.epochs=2,0"]
    done = run(*sweep, "dry_run=json")
    assert done.returncode == 1 and done.stderr.count("train.epochs=0: must be at least 1") == 2
    assert [run["state"] for run in json.loads(done.stdout)["runs"]] == ["missing"] * 2
    assert " torch\n" not in done.stderr and not results.exists()


@pytest.mark.slow
def test_a_table_of_the_paper_is_planned(tmp_path: Path) -> None:
    places = [f"paths.{name}={tmp_path / name}" for name in ("results", "data", "models", "cache")]
    done = run("experiments=table7", "dry_run=true", *places)
    assert done.returncode == 1 and "10 runs: 10 missing" in done.stdout
    assert "cannot be reached: model FacebookAI/roberta-base" in done.stdout
    assert "cannot be reached: data of cola" in done.stdout


@pytest.mark.slow
def test_a_single_run_is_planned(tmp_path: Path) -> None:
    done = run(*options(make_home(tmp_path, 6, 4), tmp_path / "results"), "dry_run=true")
    assert done.returncode == 0 and "1 runs: 1 missing" in done.stdout
    assert " torch\n" not in done.stderr and not (tmp_path / "results").exists()
