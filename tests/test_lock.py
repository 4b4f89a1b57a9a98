"""Two processes never run the same configuration at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

from dylora.errors import UserError
from dylora.suite.lock import locked

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
