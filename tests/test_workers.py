"""Two processes of one run, started by torchrun or accelerate: what one process would do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_run import (
    ROOT,
    compose_config,
    epochs_of,
    make_home,
    options,
    record_of,
    steps_of,
)

from dylora.training import experiment

pytestmark = pytest.mark.slow
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv-backend=c10d"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a model without dropout, which differs between one process and two."""
    folder = make_home(tmp_path_factory.mktemp("home"))
    settings = folder / "model" / "config.json"
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | without))
    return folder


def launch(launcher: list[str], *arguments: str) -> "subprocess.Popen[str]":
    free_port = {"MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
    port = ["--rdzv-endpoint=localhost:0"] if launcher is TORCHRUN else ["--main_process_port=0"]
    return subprocess.Popen(
        [sys.executable, *launcher, *port, "run.py", *arguments],
        cwd=ROOT,
        env=os.environ | free_port,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return printed


def assert_same_run(one: Path, two: Path) -> None:
    """Equal steps, ranks and outputs; losses and tensors within float tolerance."""
    first, second = record_of(one), record_of(two)
    assert second["device"]["processes"] == 2
    points = [
        [(p.step, p.rank, pytest.approx(p.loss, rel=1e-3)) for p in steps_of(results)]
        for results in (one, two)
    ]
    assert points[0] == points[1]
    assert second["scores"] == first["scores"]
    tensors = [load_file(next(f.glob("records/*/adapter.safetensors"))) for f in (one, two)]
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], tensor, rtol=1e-3, atol=1e-5)
    for file in one.glob("records/*/outputs/*"):
        assert (two / file.relative_to(one)).read_text() == file.read_text()


@pytest.mark.parametrize("scope", ["step", "sample"])
def test_two_processes_take_the_steps_of_one(home: Path, tmp_path: Path, scope: str) -> None:
    """60 rows in batches of 59 leave one row, of which the second process has no share."""

    def arguments(results: Path) -> list[str]:
        more = ["train.batch_size=59", "train.accumulation=2", "train.epochs=40"]
        rules = ["train.learning_rate=0.02", f"method.rank_scope={scope}"]
        return [*options(home, results), *more, *rules, "train.eval_batch_size=7"]

    experiment.run(compose_config(*arguments(tmp_path / "one")))
    launcher = TORCHRUN if scope == "step" else ACCELERATE
    printed = finish(launch(launcher, *arguments(tmp_path / "two")))
    assert printed.count("record: ") == 1
    assert_same_run(tmp_path / "one", tmp_path / "two")
    losses = [point.loss for point in steps_of(tmp_path / "two")]
    assert losses[-1] < 0.9 * losses[0]


def test_two_processes_weigh_target_tokens_and_divide_the_ranks_to_decode(tmp_path: Path) -> None:
    """Texts differ in length, so that a mean over processes of means over tokens would differ."""

    def arguments(results: Path) -> list[str]:
        return ["task=toy_e2e", "scale=smoke", "device=cpu", f"paths.results={results}"]

    experiment.run(compose_config(*arguments(tmp_path / "one")))
    finish(launch(TORCHRUN, *arguments(tmp_path / "two")))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    ranks = sorted(f.name for f in (tmp_path / "two").glob("records/*/outputs/*.txt"))
    assert ranks == [f"test.rank{b}.txt" for b in (1, 2, 3, 4)]


def test_stopped_processes_leave_together_and_go_on_where_they_were(
    home: Path, tmp_path: Path
) -> None:
    settings = [*options(home, tmp_path), "train.epochs=120", "train.learning_rate=0.02"]
    started = launch(TORCHRUN, *settings)
    wait_for(tmp_path / "records", "*/checkpoint/state.pt", started)
    started.send_signal(signal.SIGTERM)  # torchrun passes it on to its processes
    _, errors = started.communicate(timeout=60)
    assert "run again to go on" in errors
    record = record_of(tmp_path)
    assert record["status"] == "interrupted"
    state = torch.load(next(tmp_path.glob("records/*/checkpoint/state.pt")), weights_only=True)
    assert len(state["generators"]) == 2 and 0 < state["progress"]["step"] < 720
    # The rest by a single process: a checkpoint of two serves one as well.
    experiment.run(compose_config(*settings))
    assert steps_of(tmp_path)[0]._asdict() == state["progress"]["steps"][0]
    assert epochs_of(tmp_path)[-1].epoch == 120


def wait_for(folder: Path, pattern: str, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
