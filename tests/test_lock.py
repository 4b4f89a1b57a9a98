"""Two processes never run the same configuration at the same time."""

import multiprocessing
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import runs

from dylora.errors import UserError
from dylora.results.runs import load_records
from dylora.suite.lock import locked
from dylora.suite.records import read_record, run_folder

HOLD = """
import sys; from pathlib import Path; from dylora.suite.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_the_second_process_says_who_is_first_and_a_killed_ones_lock_is_free(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "records" / "a-run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"locked\n"
        with (
            pytest.raises(UserError, match=rf"a-run is being run by process {first.pid} on .*wait"),
            locked(folder),
        ):
            pass
        with locked(tmp_path / "records" / "another-run"):
            pass
        first.kill()
    with locked(folder):
        pass


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "records" / "a-run"
    with pytest.raises(ZeroDivisionError), locked(folder):
        raise ZeroDivisionError
    with locked(folder):
        pass


def write_what_is_missing(results: Path, worker: int) -> int:
    """What a worker of a sweep does, in an order of its own; how many runs it has written."""
    seeds, written = list(range(200)), 0
    random.Random(worker).shuffle(seeds)
    for seed in seeds:
        made = runs.config("mrpc", "dylora", seed)
        made.paths.results = str(results)
        folder = run_folder(made)
        with suppress(UserError), locked(folder):
            if read_record(folder) is None:
                runs.write(results, made)
                written += 1
    return written


def test_eight_workers_write_two_hundred_records_and_lose_none(tmp_path: Path) -> None:
    with multiprocessing.get_context("forkserver").Pool(8) as pool:
        done = pool.starmap_async(write_what_is_missing, [(tmp_path, n) for n in range(8)])
        while not done.ready():
            _, problems = load_records(tmp_path / "records")  # some have no record yet
            assert all(problem.message.startswith("is not there") for problem in problems)
        written = done.get()
    assert sum(written) == 200, "a run was done twice, or never"
    found, problems = load_records(tmp_path / "records")
    assert (len(found), problems) == (200, [])
