"""What answers before torch is imported: counted in modules, which no busy machine changes."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_run import ROOT, config, make_home, options

from dylora.training import experiment

SLOW = ("torch", "transformers", "accelerate", "joblib", "matplotlib", "sklearn")
WATCHED = f"""
import atexit, runpy, sys
atexit.register(lambda: print("imported:", [name for name in {SLOW} if name in sys.modules]))
sys.argv = ["run.py", *sys.argv[1:]]
runpy.run_path("run.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def answer(*arguments: str) -> tuple[str, list[str]]:
    """What `dylora run ARGUMENTS` prints, and the slow packages that it has imported."""
    command = [sys.executable, "-c", WATCHED, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    printed, _, imported = done.stdout.rpartition("imported: ")
    return printed + done.stderr, [name for name in SLOW if repr(name) in imported]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--help"], "Groups and their choices"),
        (["train.epochs=0"], "must be at least 1"),
        (["task.files.train=absent.csv"], "absent.csv: no such file"),
        (["task.text=[subject]"], "subject"),
    ],
)
def test_help_and_mistakes_in_options_files_and_columns_wait_for_no_slow_import(
    home: Path, tmp_path: Path, wrong: list[str], said: str
) -> None:
    text, imported = answer(*options(home, tmp_path), f"paths.cache={tmp_path}", *wrong)
    assert said in text
    assert not imported


def test_a_run_that_is_done_is_shown_without_a_slow_import(home: Path, tmp_path: Path) -> None:
    experiment.run(config(home, tmp_path, "train.epochs=1"))
    text, imported = answer(*options(home, tmp_path), "train.epochs=1")
    assert "done already" in text
    assert not imported
