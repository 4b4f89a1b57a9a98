"""The `dylora` command: a name for every program of this project. No torch here."""

import os
import runpy
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from dylora.errors import UserError

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Command:
    """A program of the project and what it does."""

    script: str
    about: str


COMMANDS = {
    "run": Command("run.py", "train and score one run, or a sweep with -m"),
    "demo": Command("scripts/demo.py", "LoRA and DyLoRA on toy tasks, every rank side by side"),
    "status": Command("scripts/status.py", "what is done, running, failed and missing"),
    "tables": Command("scripts/make_tables.py", "the paper's tables from the records"),
    "figures": Command("scripts/make_figures.py", "score, time and singular values by rank"),
    "report": Command("scripts/make_report.py", "one HTML page of all results"),
    "report-md": Command("scripts/make_summary.py", "results/REPORT.md, like a short paper"),
    "choose-rank": Command("scripts/choose_rank.py", "the smallest rank that is good enough"),
    "export": Command("scripts/export_adapter.py", "an adapter for PEFT, transformers, the hub"),
    "submission": Command("scripts/submission.py", "test-set answers for GLUE's leaderboard"),
    "sort": Command("scripts/sort_by_svd.py", "order a trained LoRA by rank, without training"),
    "score": Command("scripts/score.py", "official metrics of any system's generated texts"),
    "prepare-data": Command("scripts/prepare_data.py", "fetch E2E, DART and WebNLG"),
    "pretrain": Command("scripts/pretrain.py", "a small language model from plain text"),
}
USAGE = """DyLoRA: train a low-rank adapter once, use it at every rank.

  dylora run task=mrpc method=dylora
  dylora COMMAND --help

"""
COMPLETION = 'completion of `dylora run` in bash: eval "$(dylora completion)"'


def main() -> None:
    """Run the command that the command line names, with the rest of it."""
    if find_spec("omegaconf") is None:  # only the library is installed
        sys.exit("error: the commands need more packages: type pip install 'dylora[suite]'")
    from dylora.suite.cli import plain_errors

    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        listing = "\n".join(f"  {n:<13} {c.about}" for n, c in COMMANDS.items())
        print(f"{USAGE}{listing}\n\n{COMPLETION}")
    elif name == "completion":
        install_completion()
    elif name == "-sc":  # what that installed asks for; Hydra knows `run` without its name
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(" run ", " ", 1)
        _start("run", [name, *arguments])
    else:
        with plain_errors():
            if name not in COMMANDS:
                raise UserError(_unknown(name))
            if not (PROJECT / COMMANDS[name].script).is_file():
                raise UserError(f"dylora {name} needs the project's folder, not only the package")
        _start(name, arguments)


def _start(name: str, arguments: list[str]) -> None:
    """As `python SCRIPT ARGUMENTS` would."""
    sys.argv[1:] = arguments
    runpy.run_path(str(PROJECT / COMMANDS[name].script), run_name="__main__")


def install_completion() -> None:
    """Print Hydra's completion for bash, which completes groups, choices and options."""
    from hydra._internal.core_plugins.bash_completion import BashCompletion

    sys.argv[0] = "dylora"  # whose arguments are completed
    BashCompletion(config_loader=None).install()  # type: ignore[arg-type]  # needed to query only


def _unknown(name: str) -> str:
    near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    meant = f"did you mean `dylora {near[0]}`?" if near else "`dylora --help` lists them"
    return f"there is no command {name!r}; {meant}"
