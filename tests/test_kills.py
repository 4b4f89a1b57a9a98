"""A killed run leaves nothing that the next would not mend; `make faults` kills many more."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_runs.py")


@pytest.mark.slow
def test_runs_that_are_killed_end_as_if_they_had_not_been() -> None:
    every, at_random = "29", "1"
    done = subprocess.run(
        [sys.executable, PROGRAM, every, at_random], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each followed by a run that ended as one that nobody had killed" in done.stdout
