"""How long a run would take: rows, epochs and ranks, at the pace of finished runs."""

from pathlib import Path
from typing import Any

import pytest
from table_records import settings, write_run

from dylora.results.cost import Estimate, Estimator, duration, option_of
from dylora.results.runs import load_records
from dylora.results.status import PlannedRuns, time_left
from dylora.suite.config import Precision, Protocol, RankLoss, Truncation

MRPC = ("mrpc", "dylora", 1, "roberta_base", 8)
TIMES = {"prepare": 2.0, "train": 100.0, "evaluate": 8.0, "truncations": 21.0}


def write(results: Path, *place: Any, record: dict[str, Any] | None = None, **options: Any) -> None:
    content = {"times": TIMES, **(record or {})}
    write_run(results, *place, *MRPC[len(place) :], None, content, **options)


def estimate(results: Path, *place: Any, **options: Any) -> Estimate | None:
    config = settings(*place, *MRPC[len(place) :])
    for name, value in options.items():
        group, _, option = name.rpartition("__")
        setattr(getattr(config, group) if group else config, option, value)
    runs, problems = load_records(results / "records")
    assert not problems
    return Estimator(runs)(option_of(config))


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 100 + 8),
        ({"train__epochs": 30}, 1000 + 8),
        ({"method__max_rank": 4}, 100 + 4),
        ({"evaluate__ranks": [1, 8]}, 100 + 2),
        ({"method__loss": RankLoss.sum}, 800 + 8),
        ({"train__max_steps": 57, "train__accumulation": 2}, 100 * 57 * 64 / (3 * 3668) + 8),
        ({"task__max_train_rows": 1834, "task__max_eval_rows": 102}, 50 + 2),
        ({"task__holdout": 408}, 100 * 3260 / 3668 + 8),
    ],
)
def test_training_costs_rows_and_epochs_and_scoring_rows_and_ranks(
    tmp_path: Path, options: dict[str, Any], seconds: float
) -> None:
    write(tmp_path)
    found = estimate(tmp_path, **options)
    assert found and found.seconds == pytest.approx(2 + seconds) and not found.rough


def test_each_truncation_costs_the_ranks_below_the_highest(tmp_path: Path) -> None:
    scores = {str(rank): {"accuracy": 0.8} for rank in range(1, 9)}
    write(tmp_path, "mrpc", "lora", record={"truncations": {"svd": scores}})
    both = [Truncation.svd, Truncation.rescaled]
    found = estimate(tmp_path, "mrpc", "lora", evaluate__truncations=both)
    assert found and found.seconds == pytest.approx(2 + 100 + 8 + 2 * 21)
    write(tmp_path / "none", "mrpc", "lora")
    found = estimate(tmp_path / "none", "mrpc", "lora", evaluate__truncations=both)
    assert found and found.seconds == pytest.approx(2 + 100 + 8 + 2 * 7), "at scoring's pace"


def test_without_a_run_of_the_task_others_of_the_model_say_it_by_the_rows(tmp_path: Path) -> None:
    write(tmp_path)
    found = estimate(tmp_path, "rte")
    assert found and found.rough
    assert found.seconds == pytest.approx(2 + 100 * 2490 / 3668 + 8 * 277 / 408)
    assert estimate(tmp_path, "nobody_knows") is None, "how many rows"
    assert estimate(tmp_path, "e2e") is None, "texts are decoded"
    assert estimate(tmp_path, *MRPC[:3], "minilm") is None
    found = estimate(tmp_path, train__precision=Precision.bf16)
    assert found and found.rough
    write(tmp_path, record={"times": TIMES | {"train": 40.0}}, train__precision="bf16")
    found = estimate(tmp_path, train__precision=Precision.bf16)
    assert found and not found.rough and found.seconds == pytest.approx(2 + 40 + 8)


def test_rows_are_those_that_a_record_was_made_from(tmp_path: Path) -> None:
    data = {
        split: {"rows": rows, "sha256": ""} for split, rows in (("train", 50), ("validation", 4))
    }
    write(tmp_path, record={"data": data})
    found = estimate(tmp_path, task__max_train_rows=1834)
    assert found and found.seconds == pytest.approx(2 + 100 * 1834 / 50 + 8 * 408 / 4)
    found = estimate(tmp_path, "rte")
    assert found and found.seconds == pytest.approx(2 + 100 * 2490 / 50 + 8 * 277 / 4)


def test_the_pace_is_that_of_the_machine_and_threads_of_the_last_run(tmp_path: Path) -> None:
    for seed, threads, seconds in ((1, 1, 100.0), (2, 2, 60.0), (3, 2, 70.0)):
        device, started = {"name": "cpu", "threads": threads}, f"2026-01-0{seed}T00:00:00"
        more = {"times": TIMES | {"train": seconds}, "device": device, "started": started}
        write(tmp_path, "mrpc", "dylora", seed, record=more)
    found = estimate(tmp_path)
    assert found and found.machine == "cpu, 2 threads"
    assert found.seconds == pytest.approx(2 + 65 + 8), "the median"
    found = estimate(tmp_path, threads=1)
    assert found and found.machine == "cpu, 1 thread" and found.seconds == pytest.approx(110)


def test_the_time_left_of_an_experiment_is_that_of_what_is_missing(tmp_path: Path) -> None:
    """With the settings that conf/ has: 30 epochs of MRPC and of CoLA."""
    write(tmp_path, train__epochs=30, record={"times": TIMES | {"train": 3600.0}})
    estimator = Estimator(load_records(tmp_path / "records")[0])

    def said(model: str, *tasks: str) -> str:
        options = {"method": "dylora", "method.max_rank": "4", "seed": "2"}
        planned = [({"task": task} | options, "missing") for task in tasks]
        done = [({"task": "mnli"} | options, "done")]
        return time_left(PlannedRuns(model, Protocol.paper, [*planned, *done]), estimator)

    assert said("roberta_base", "mrpc", "mrpc") == "; about 2 h 0 min left in turn"
    assert said("roberta_base", "mrpc", "cola").endswith("left in turn, roughly for cola")
    assert said("roberta_base", "mrpc", "e2e").endswith("left in turn, and unknown for e2e")
    assert said("minilm", "mrpc") == "; time left unknown, as no run like them is done"
    assert said("roberta_base") == ""


def test_a_duration_is_short_to_read() -> None:
    assert [duration(s) for s in (4.4, 65, 3590, 7790)] == [
        "4 s",
        "1 min",
        "1 h 0 min",
        "2 h 10 min",
    ]
