"""The benchmarks compare what is comparable; nothing here takes a time."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import __main__ as bench
from benchmarks import growth, peers, workers
from benchmarks.measure import Measured

TINY = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 64}
PEERS = [each for each in (peers.peft, peers.loralib, peers.lycoris) if find_spec(each.__name__)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.SIZES, "tiny", TINY)


def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.__name__)
def test_a_peer_trains_as_many_parameters_as_we_do(peer: Callable[[nn.Module], nn.Module]) -> None:
    assert trained(peer(peers.backbone("tiny"))) == trained(peers.ours(peers.backbone("tiny")))


def test_a_ratio_is_of_times_that_were_taken_at_the_same_moment() -> None:
    times = {"base": [1.0, 10.0, 2.0], "other": [2.0, 20.0, 4.0]}
    _, other = Measured(times, times).rows("base")
    assert other["cpu_seconds"] == 4.0
    assert other["ratio"] == [2.0, 2.0, 2.0]


def test_the_throughput_of_a_sweep_counts_every_run_that_was_at_once() -> None:
    seconds = {"1 worker of 1 thread": [2.0, 4.0], "2 workers of 1 thread": [4.0, 8.0]}
    found = workers.rows({name: [(wall, 1.5) for wall in walls] for name, walls in seconds.items()})
    assert [row["runs_per_minute"] for row in found] == [22.5, 22.5]
    assert found[1]["ratio"] == [1.0, 1.0, 1.0]  # twice the runs in twice the time
    table = bench.text({"workers": found})
    assert "| 2 workers of 1 thread | 22.5 | 1.00 (1.00 to 1.00) |" in table


def test_kept_memory_grows_with_the_batch_and_a_little_with_the_rank() -> None:
    def kept(rank: int, examples: int) -> int:
        model = peers.ours(peers.backbone("tiny"), "lora", rank).train()
        return growth.kept_bytes(model, peers.batch_of(examples, length=8))

    assert kept(1, 8) > 1.5 * kept(1, 4)
    assert kept(1, 8) < kept(32, 8) < 1.5 * kept(1, 8)


def test_without_a_gpu_the_gpu_benchmark_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "device=cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.main()
    assert "no GPU here" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
