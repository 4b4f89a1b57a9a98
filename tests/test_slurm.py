"""A sweep on a real SLURM of one node, and jobs that it interrupts (see tests/slurm/cluster.sh)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_run import ROOT, make_home, options

from dylora.suite.history import read_steps

CLUSTER = Path(__file__).parent / "slurm" / "cluster.sh"
PATIENCE = 120  # seconds
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands find the tests' own cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(["bash", CLUSTER, "start", folder], capture_output=True, text=True)
    if started.returncode == 3:
        pytest.skip(started.stderr.strip().splitlines()[-1])
    try:
        assert started.returncode == 0, started.stderr
        settings = {"SLURM_CONF": str(folder / "slurm.conf"), "XDG_CACHE_HOME": str(folder)}
        yield {**os.environ, **settings, "OMP_NUM_THREADS": "1"}
    finally:
        subprocess.run(["bash", CLUSTER, "stop", folder], check=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"), 600, 10)


def sweep(home: Path, results: Path, *more: str) -> list[str]:
    return [sys.executable, "run.py", "-m", *options(home, results), *more]


ON_SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1")


def test_jobs_are_submitted_and_reported_like_a_local_sweep(
    slurm: dict[str, str], home: Path, tmp_path: Path
) -> None:
    files = "task.files.train=validation.csv,absent.csv"
    command = sweep(home, tmp_path, files, *ON_SLURM)
    done = subprocess.run(
        command, cwd=ROOT, env=slurm, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "1 of 2 runs done, 1 failed" in done.stdout
    assert done.stderr.count("absent.csv: no such file") == 1
    assert "Traceback" not in done.stderr
    (record,) = tmp_path.glob("records/*/record.json")
    assert json.loads(record.read_text())["device"]["threads"] == 1
    outputs = Path(slurm["XDG_CACHE_HOME"]).glob("dylora/slurm/*/*_log.out")
    assert sum(f"record: {record}" in output.read_text() for output in outputs) == 1


def test_warned_and_requeued_jobs_go_on_to_the_same_result(
    slurm: dict[str, str], home: Path, tmp_path: Path
) -> None:
    """Seed 1 is warned that its time is up, seed 2 gives way to a job of higher priority."""
    settings = ("seed=1,2", "train.epochs=12")
    local, remote = tmp_path / "local", tmp_path / "remote"
    log = tmp_path / "sweep.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            sweep(home, remote, *settings, *ON_SLURM),
            cwd=ROOT,
            env=slurm,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as running,
    ):
        try:
            for seed in (1, 2):
                wait_for(lambda seed=seed: list(remote.glob(f"records/*-s{seed}-*/checkpoint/*")))
                job = job_of(seed - 1, slurm)
                stop = ("scancel", "--signal=USR2") if seed == 1 else ("scontrol", "requeue")
                subprocess.run([*stop, job], env=slurm, check=True)
                wait_for(lambda seed=seed: record_of(remote, seed)["status"] == "interrupted")
                assert "stopped after" in record_of(remote, seed)["error"]  # between two steps
            subprocess.run(sweep(home, local, *settings), cwd=ROOT, env=slurm, check=True)
            assert running.wait(PATIENCE) == 0, log.read_text()
        finally:
            running.kill()
    assert "2 of 2 runs done" in log.read_text()
    for seed in (1, 2):
        (expected,), (found,) = (list(f.glob(f"records/*-s{seed}-*")) for f in (local, remote))
        tensors = load_file(found / "adapter.safetensors")
        for name, tensor in load_file(expected / "adapter.safetensors").items():
            assert torch.equal(tensors[name], tensor), name
        straight, stopped = record_of(local, seed), record_of(remote, seed)
        assert stopped["scores"] == straight["scores"]
        assert read_steps(found) == read_steps(expected)
        assert not (found / "checkpoint").exists()


def record_of(results: Path, seed: int) -> dict[str, Any]:
    (path,) = results.glob(f"records/*-s{seed}-*/record.json")
    return json.loads(path.read_text())


def job_of(index: int, slurm: dict[str, str]) -> str:
    """The id of the running array job's member."""
    listing = ["squeue", "--noheader", "--array", "--format=%F_%K"]
    found = subprocess.run(listing, env=slurm, check=True, capture_output=True, text=True).stdout
    (job,) = (name for name in found.split() if name.endswith(f"_{index}"))
    return job


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
