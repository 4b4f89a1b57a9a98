"""How many threads a run takes, what it says of them, and the bar of scoring."""

import io
from functools import partial
from pathlib import Path

import pytest
from small_run import config, make_home, record_of
from tqdm import tqdm

from dylora.suite.records import signature
from dylora.training import bars, experiment, machine

LARGE = 100_000_000


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine, "ALLOWED", 4)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(("busy", "threads"), [(0.0, 4), (0.2, 4), (0.5, 3), (2.9, 1), (9.0, 1)])
def test_a_large_model_takes_the_cores_that_no_other_program_uses(
    busy: float, threads: int
) -> None:
    assert machine.thread_count(LARGE, busy) == threads


@pytest.mark.usefixtures("four_cores")
def test_a_small_model_takes_one_thread_and_an_option_wins_over_everything() -> None:
    assert machine.thread_count(1000, busy=0) == 1
    assert machine.thread_count(1000, busy=9, wanted=3) == 3


@pytest.mark.usefixtures("four_cores")
def test_no_more_threads_are_taken_than_the_environment_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "ALLOWED", 2)  # OMP_NUM_THREADS, a launcher or an affinity
    assert machine.thread_count(LARGE, busy=0) == 2


def test_what_this_process_computes_is_not_taken_for_another_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = {"clock": 0.0, "others": 10.0}
    monkeypatch.setattr(machine.time, "perf_counter", lambda: at["clock"])
    monkeypatch.setattr(machine, "_seconds_of_others", lambda: at["others"])
    others = machine.OtherPrograms()
    at.update(clock=2.0, others=13.0)
    assert others.cores() == 1.5


def test_threads_are_in_the_log_and_the_record_and_not_in_the_name_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_home(tmp_path)
    given = config(home, tmp_path / "results", "threads=2")
    experiment.run(given)
    assert record_of(tmp_path / "results")["device"]["threads"] == 2
    assert "threads: 2 (" in capsys.readouterr().out
    assert signature(given) == signature(config(home, tmp_path / "results"))


def test_a_run_that_goes_on_keeps_its_threads_for_the_same_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path)

    def stopped(*settings: object) -> None:
        checkpoint.mkdir(parents=True)
        raise RuntimeError("killed")

    checkpoint = experiment.run_folder(config(home, tmp_path / "results")) / "checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", stopped)
        with pytest.raises(RuntimeError):
            experiment.run(config(home, tmp_path / "results", "threads=2"))
    assert checkpoint.is_dir()
    experiment.run(config(home, tmp_path / "results"))
    assert record_of(tmp_path / "results")["device"]["threads"] == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_scoring_shows_the_rank_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(bars, "tqdm", partial(tqdm, file=shown, mininterval=0))
    passes = [(batch, rank) for batch, ranks in bars.batch_ranks("ab", [1, 3]) for rank in ranks]
    assert passes == [("a", 1), ("a", 3), ("b", 1), ("b", 3)]
    assert "rank 3" in shown.getvalue() and "4/4" in shown.getvalue()
