"""What a sweep says before each run."""

from pathlib import Path
from typing import Any

import pytest
from table_records import settings, write_run

from dylora.results.progress import SweepProgress
from dylora.suite.config import Config, PathsConfig

TIMES = {"times": {"prepare": 0.0, "train": 3600.0, "evaluate": 0.0}}


def done(results: Path, seed: int, method: str = "dylora") -> None:
    write_run(results, "mrpc", method, seed, record=TIMES)


def planned(results: Path, *seeds: int, method: str = "dylora", **options: Any) -> list[Config]:
    configs = [settings("mrpc", method, seed, "roberta_base", 8, **options) for seed in seeds]
    for config in configs:
        config.paths = PathsConfig(results=str(results))
    return configs


def test_each_run_is_named_with_the_time_of_those_that_are_not_done(tmp_path: Path) -> None:
    progress = SweepProgress(planned(tmp_path, 1, 2, 3))
    first = "run 1 of 3 (mrpc, dylora, seed 1)"
    assert progress.line(0) == f"{first}, time left unknown, as no run like them is done"
    done(tmp_path, 1)
    assert progress.line(1) == "run 2 of 3 (mrpc, dylora, seed 2), about 2 h 0 min left"
    done(tmp_path, 3)  # by somebody else
    assert progress.line(1).endswith("about 1 h 0 min left")
    assert progress.line(2) == "run 3 of 3 (mrpc, dylora, seed 3)", "nothing is left"


def test_a_run_that_failed_is_not_waited_for(tmp_path: Path) -> None:
    done(tmp_path, 9)
    assert SweepProgress(planned(tmp_path, 1, 2)).line(1).endswith("about 1 h 0 min left")


def test_forced_runs_take_their_time_again(tmp_path: Path) -> None:
    done(tmp_path, 1)
    configs = planned(tmp_path, 1, 2)
    assert SweepProgress(configs).line(0).endswith("about 1 h 0 min left")
    for config in configs:
        config.force = True
    assert SweepProgress(configs).line(0).endswith("about 2 h 0 min left")


def test_runs_at_once_share_the_time(tmp_path: Path) -> None:
    done(tmp_path, 9)
    line = SweepProgress(planned(tmp_path, 1, 2, 3, 4)).line(0, together=4, at_a_time=2)
    assert line == "runs 1 to 4 of 4, about 2 h 0 min left with 2 at a time"


@pytest.mark.parametrize("broken", [False, True])
def test_what_cannot_be_estimated_is_counted_and_what_cannot_be_composed_left_out(
    tmp_path: Path, broken: bool
) -> None:
    done(tmp_path, 9)
    configs: list[Config | None] = [*planned(tmp_path, 1)]
    [other] = planned(tmp_path, 2)
    other.model.name = "minilm"
    line = SweepProgress([None if broken else other, *configs]).line(0)
    named = "run 1 of 2" if broken else "run 1 of 2 (mrpc, dylora, seed 2)"
    assert line == f"{named}, about 1 h 0 min left" + (
        "" if broken else ", and unknown for 1 of 2 runs"
    )
