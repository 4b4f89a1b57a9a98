"""Which runs an experiment stands for, and what a sweep does when some of them fail."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import make_home, options

from dylora.suite.sweep import jobs

ROOT = Path(__file__).parents[1]
GRIDS = [
    {"task": ["mrpc", "rte"], "method": "full", "seed": [1, 2]},
    {"task": ["mrpc", "rte"], "method": "lora", "method.max_rank": [1, 8], "seed": [1, 2]},
]


def test_a_union_of_products_has_each_run_once() -> None:
    found = jobs([*GRIDS, GRIDS[0]], {})
    assert len(found) == 2 * 2 + 2 * 2 * 2
    assert found[0] == ("task=mrpc", "method=full", "seed=1")
    assert ("task=rte", "method=lora", "method.max_rank=8", "seed=2") in found


def test_without_grids_the_command_line_is_the_product() -> None:
    assert jobs([], {"task": ["mrpc", "rte"], "seed": ["1"]}) == [
        ("task=mrpc", "seed=1"),
        ("task=rte", "seed=1"),
    ]


def test_an_option_narrows_the_grids_that_have_it() -> None:
    found = jobs(GRIDS, {"method": ["lora"], "seed": ["2"]})
    assert len(found) == 4
    assert all("method=lora" in job and "seed=2" in job for job in found)


def test_an_option_of_no_grid_goes_to_every_run() -> None:
    found = jobs(GRIDS, {"model": ["minilm"], "seed": ["9"]})
    assert len(found) == 2 + 4
    assert all("model=minilm" in job and "seed=9" in job for job in found)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), 20, 10)


def sweep(home: Path, results: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", "-m", *options(home, results), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


# The second run cannot find its file; the first and the third are sound.
FILES = "task.files.train=train.csv,absent.csv"


@pytest.mark.slow
def test_a_failed_run_is_listed_and_stops_no_other(home: Path, tmp_path: Path) -> None:
    done = sweep(home, tmp_path, FILES, "seed=1,2")
    assert done.returncode == 1
    assert "2 of 4 runs done, 2 failed" in done.stdout
    assert done.stderr.count("absent.csv: no such file") == 2
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("records/*/record.json"))) == 2


@pytest.mark.slow
def test_fail_fast_stops_at_the_first_failure(home: Path, tmp_path: Path) -> None:
    files = "task.files.train=absent.csv,train.csv"
    done = sweep(home, tmp_path, files, "fail_fast=true")
    assert done.returncode == 1
    assert "0 of 2 runs done, 1 failed" in done.stdout
    assert not list(tmp_path.glob("records/*"))


@pytest.mark.slow
def test_a_second_sweep_skips_what_is_done(home: Path, tmp_path: Path) -> None:
    first = sweep(home, tmp_path, "method=lora,dylora")
    second = sweep(home, tmp_path, "method=lora,dylora,head_only")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "2 of 2 runs done, 0 failed" in first.stdout
    assert second.stdout.count("done already") == 2
    assert "run 1 of 2 (words, lora, seed 1), time left unknown" in first.stdout
    assert re.search(r"run 2 of 2 \(words, dylora, seed 1\), about \d+ s left", first.stdout)
    assert "run 3 of 3 (words, head_only, seed 1), about" in second.stdout
    assert len(list(tmp_path.glob("records/*/record.json"))) == 3


@pytest.mark.slow
def test_runs_in_parallel_share_the_threads(home: Path, tmp_path: Path) -> None:
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = sweep(home, tmp_path, "seed=1,2", *launcher)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs done" in done.stdout
    assert "runs 1 to 2 of 2, time left unknown" in done.stdout
    records = [json.loads(path.read_text()) for path in tmp_path.glob("records/*/record.json")]
    share = max(1, (os.cpu_count() or 1) // 2)
    assert [record["device"]["threads"] <= share for record in records] == [True, True]
