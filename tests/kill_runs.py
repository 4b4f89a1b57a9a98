"""Kills runs and starts them again: what comes out equals a run that nobody disturbed, bit for bit.

  python tests/kill_runs.py [EVERY RANDOM]      or `make faults`

Three kinds of tiny runs, a classification, a generation, and a classification that replaces an
older result, get a SIGKILL right before every operation on a file (open, rename, removal, new
folder), or only every EVERY-th, and at RANDOM moments. The program ends with 1 at the first run
that comes out otherwise.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

import small_generation
import small_run

from dylora.suite.config import Config
from dylora.training import experiment

OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}  # as `sys.audit` has them
# What may differ between two equal runs: times, memory, and the sources, if someone works on them.
INCIDENTAL = ("started", "times", "peak_memory_bytes", "git", "train_seconds", "evaluate_seconds")

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["small_generation", "small_run", "dylora.training.experiment"])


class Assassin:
    """Kills this process right before its n-th operation on a file below a folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.left = str(folder), number

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS:
            return
        path, parent = str(arguments[0]), arguments[-1]
        relative = event in ("os.remove", "os.rmdir") and isinstance(parent, int) and parent >= 0
        if path.startswith(self.folder) or relative:  # rmtree names files by their folder's handle
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def work(config: Config, log: Path, operation: int | None) -> None:
    """The run, in a process of its own."""
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        if operation is not None:
            sys.addaudithook(Assassin(Path(config.paths.results), operation))
        experiment.run(config, "dylora run")


def start(config: Config, operation: int | None = None) -> Any:
    log = Path(config.paths.results).parent / "log.txt"
    process = processes.Process(target=work, args=(config, log, operation))
    process.start()
    return process


def killed(config: Config, operation: int | None, seconds: float) -> bool:
    """Start a run and have it killed; False if it was done before."""
    process = start(config, operation)
    if operation is None:
        time.sleep(seconds)
        process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def finish(config: Config) -> None:
    """Run to the end; SystemExit with the end of what it said if that fails."""
    process = start(config)
    process.join()
    if process.exitcode:
        said = (Path(config.paths.results).parent / "log.txt").read_text()
        raise SystemExit(f"\nthe run failed: {said[-2000:]}")


def outcome(results: Path) -> dict[str, Any]:
    """All files that a run has left, without what may differ."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in results.rglob("*") if path.is_file()):
        name = path.relative_to(results).as_posix()
        if path.name == "record.json":
            found[name] = without_incidental(json.loads(path.read_text()))
        elif path.name == "epochs.csv":
            with path.open(newline="") as file:
                found[name] = [without_incidental(row) for row in csv.DictReader(file)]
        elif path.parent.name != "locks":
            found[name] = path.read_bytes()
    return found


def without_incidental(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in INCIDENTAL}


def classification(folder: Path) -> Config:
    home = small_run.make_home(folder)
    often = ["train.batch_size=20", "train.checkpoint_seconds=0"]  # 6 steps, each with a checkpoint
    return small_run.config(home, folder / "results", *often)


def generation(folder: Path) -> Config:
    home = small_generation.make_home(folder)
    given = ["task.metrics=[BLEU]", "task.decode.token_budget=1"]  # notes every text by itself
    return small_run.compose_config(*small_generation.options(home, folder / "results"), *given)


def replacement(folder: Path) -> Config:
    made = classification(folder)
    experiment.run(made, "dylora run")
    made.force = True
    return made


class Victim:
    """Runs of a configuration in a folder, from the same beginning each time."""

    def __init__(self, kind: Callable[[Path], Config], folder: Path) -> None:
        folder.mkdir()
        with (folder / "log.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            self.config = kind(folder)
        self.results, self.before = folder / "results", folder / "before"
        self.results.mkdir(exist_ok=True)
        shutil.copytree(self.results, self.before)
        started = time.perf_counter()
        finish(self.config)
        self.seconds, self.expected = time.perf_counter() - started, outcome(self.results)

    def survives(self, operation: int | None, moment: float) -> bool:
        """Kill a run and repeat it; True if it was done before it could be killed.

        SystemExit if what it leaves is not what it left undisturbed.
        """
        shutil.rmtree(self.results)
        shutil.copytree(self.before, self.results)
        if not killed(self.config, operation, moment * self.seconds):
            return True
        left = outcome(self.results)
        if self.config.force and not (self._whole(left, "records") or self._whole(left, "forced")):
            raise SystemExit("\nthe older result is damaged, and the new one is not yet done")
        finish(self.config)
        now = outcome(self.results)
        names = {n for n in now.keys() | self.expected.keys() if now.get(n) != self.expected.get(n)}
        if names:
            raise SystemExit(f"\nnot as without the kill: {', '.join(sorted(names))}")
        return False

    def _whole(self, left: dict[str, Any], place: str) -> bool:
        """Whether a whole result is among the files that a kill has left."""
        names = {name.replace("records", place, 1): name for name in self.expected}
        return all(left.get(there) == self.expected[name] for there, name in names.items())


def kill(folder: Path, every: int, at_random: int) -> int:
    """Kill runs of all kinds before every n-th operation and at random moments; how many kills."""
    kills, draw = 0, random.Random(1)
    for kind in (classification, generation, replacement):
        victim = Victim(kind, folder / kind.__name__)
        said = f"kills; now a {kind.__name__}"
        for operation in count(1, every):
            print(f"\r{kills} {said} before operation {operation:<10}", end="", flush=True)
            if victim.survives(operation, 0):  # it has no more operations
                break
            kills += 1
        for _ in range(at_random):
            print(f"\r{kills} {said} at a random moment {'':10}", end="", flush=True)
            kills += not victim.survives(None, draw.random())
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("every", type=int, nargs="?", default=1)
    parser.add_argument("random", type=int, nargs="?", default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kills = kill(Path(folder), given.every, given.random)
    print(f"\n{kills} kills, each followed by a run that ended as one that nobody had killed")


if __name__ == "__main__":
    main()
