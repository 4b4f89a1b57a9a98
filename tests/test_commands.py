"""The `dylora` command: it names every program, starts it as a script, needs no torch itself."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dylora.suite.commands import COMMANDS

ROOT = Path(__file__).parents[1]


def dylora(*arguments: str, line: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dylora", *arguments],
        cwd=ROOT,
        env={**os.environ, "COMP_LINE": line},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_names_every_command_at_once() -> None:
    done = dylora("--help")
    assert done.returncode == 0
    for name in ("run", "demo", "tables", "figures", "report", "export", "score", "choose-rank"):
        assert f"\n  {name} " in done.stdout
    for heavy in ("torch", "transformers", "hydra", "matplotlib"):
        assert f" {heavy}\n" not in done.stderr


def test_every_script_has_a_command() -> None:
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
    assert {command.script for command in COMMANDS.values()} == scripts | {"run.py"}


def test_the_package_installs_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"dylora": "dylora.suite.commands:main"}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"run"}))
def test_the_help_of_a_command_is_that_of_its_script(name: str) -> None:
    done = dylora(name, "--help")
    assert done.returncode == 0
    assert " torch\n" not in done.stderr
    assert f"dylora {name}" in done.stdout


def test_a_command_that_is_not_there_is_told_with_the_nearest() -> None:
    done = dylora("tabels")
    assert done.returncode == 2
    assert done.stderr.endswith("no command 'tabels'; did you mean `dylora tables`?\n")


def test_a_mistake_in_a_run_is_told_in_one_message() -> None:
    done = dylora("run", "tsk=mrpc")
    assert done.returncode == 2 and "did you mean task?" in done.stderr
    assert "Traceback" not in done.stderr


def test_bash_completes_choices_of_a_run() -> None:
    assert dylora("-sc", "query=bash", line="dylora run task=mr").stdout.split() == ["task=mrpc"]
    assert dylora("completion").stdout.endswith("-F hydra_bash_completion dylora\n")


def test_help_says_what_an_option_means() -> None:
    said = dylora("choose-rank", "--help").stdout
    assert re.search(r"tolerance=0.5 +points that the score may be below the best rank's", said)
    assert re.search(r"metric=null +null: the task's own", said)
