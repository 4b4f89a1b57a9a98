"""All run records of a folder, read once for tables, figures and the report. No torch here."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dylora.errors import UserError
from dylora.methods import METHODS
from dylora.suite.config import Config
from dylora.suite.constant import constant
from dylora.suite.history import EpochScore, Step, read_epochs, read_steps
from dylora.suite.records import Record, read_record

SCHEMA_DEFAULTS: dict[str, Any] = asdict(Config())
LIMITS = ("train.max_steps", "task.max_train_rows", "task.max_eval_rows", "task.holdout")
Scores = dict[int, dict[str, float | None]]  # rank -> metric -> value; rank 0: no adapter


@dataclass(frozen=True)
class Problem:
    """Something that was left out of the results: in which file, why, and what to do."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, eq=False)
class Run:
    """One run, finished or not; `record` is its record.json."""

    folder: Path
    record: Record

    @property
    def signature(self) -> str:
        return self.record["signature"]

    @property
    def done(self) -> bool:
        return self.record["status"] == "done"

    @property
    def task(self) -> str:
        return self.record["task"]

    @property
    def model(self) -> str:
        return self.record["model"]

    @property
    def method(self) -> str:
        return self.record["method"]

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @cached_property
    def scores(self) -> Scores:
        """As each metric counts; `dylora.metrics.metric_named` says how it is printed.

        What is not a number (a correlation with a constant, a metric without its Java) is None.
        """
        return _scores(self.record["scores"])

    def truncated(self, truncation: str | None) -> Scores:
        """Of a LoRA cut to its lower ranks in another way; None: as it was trained, as `scores`.

        Empty where the record has none (`evaluate.truncations`).
        """
        if truncation is None:
            return self.scores
        return _scores(self.record.get("truncations", {}).get(truncation, {}))

    @property
    def max_rank(self) -> int:
        """The rank trained at; 0 for a method without adapters."""
        return self.option("method.max_rank") if METHODS[self.method].has_ranks else 0

    def option(self, name: str) -> Any:
        """The value of an option such as `method.frozen`; newer than the record: its default."""
        value, default = self.record["config"], SCHEMA_DEFAULTS
        for key in name.split("."):
            default = default[key]
            value = value.get(key, default) if isinstance(value, dict) else default
        return value

    def config(self) -> Config:
        """The whole configuration; what says where and how to work has its default."""
        made = OmegaConf.to_object(OmegaConf.merge(Config, self.record["config"]))
        assert isinstance(made, Config)
        return made

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All options but the seed, flat: runs that differ in nothing else are repetitions."""
        flat = dict(_flat(SCHEMA_DEFAULTS, "")) | dict(_flat(self.record["config"], ""))
        flat["init_adapter"] = flat["init_adapter"] is not None  # each seed starts from its own
        return {name: value for name, value in flat.items() if name != "seed"}

    @cached_property
    def settings_key(self) -> str:
        """Equal for runs with equal settings."""
        return json.dumps(self.settings, sort_keys=True)

    @property
    def limits(self) -> dict[str, int]:
        """The options that make the run a trial: not all the data, not all the steps."""
        values = {name: self.option(name) for name in LIMITS}
        return {name: value for name, value in values.items() if value is not None}

    def steps(self) -> list[Step]:
        """Loss and rank of the training steps, read from their file as they are many."""
        return read_steps(self.folder)

    def epochs(self) -> list[EpochScore]:
        """The scores after each epoch, read from their file."""
        return read_epochs(self.folder)

    def output(self, split: str, rank: int) -> list[str] | None:
        """What the run predicted at a rank, a line per example; None if it was not kept."""
        return read_lines(self.folder / "outputs" / f"{split}.rank{rank}.txt")

    def constant(self, rank: int, truncation: str | None) -> bool:
        """Whether it predicts the same for every example of a split there."""
        place = f"{truncation}/" if truncation and rank < self.max_rank else ""
        splits = self.option("task.eval_splits")
        found = (read_lines(self.folder / f"outputs/{place}{s}.rank{rank}.txt") for s in splits)
        return any(constant(lines or []) for lines in found)

    def labels(self, split: str) -> list[str] | None:
        """What `output` should have been (classification and regression)."""
        return read_lines(self.folder / "outputs" / f"{split}.labels.txt")


def load_records(folder: Path) -> tuple[list[Run], list[Problem]]:
    """All usable runs below `folder` (results/records), sorted by signature, and what is not.

    Left out, each with a Problem: an unreadable or half-written record, one of another schema, and
    all records of one signature that disagree on the scores. Equal copies count once.
    """
    by_signature: dict[str, list[Run]] = {}
    problems: list[Problem] = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        try:
            run = load_run(place)
        except UserError as error:
            path = place / "record.json"
            problems.append(Problem(path, str(error).removeprefix(f"{path}: ")))
        else:
            by_signature.setdefault(run.signature, []).append(run)
    runs = []
    for _, same in sorted(by_signature.items()):
        chosen = _agreed(same)
        if chosen is None:
            problems.extend(_disagreements(same))
        else:
            runs.append(chosen)
    return runs, problems


def load_run(folder: Path) -> Run:
    """The run of a folder. Raises UserError saying what is wrong with its record and what to do."""
    record = read_record(folder)
    if record is None:
        path = folder / "record.json"
        raise UserError(f"{path}: is not there; delete this folder and run again")
    return Run(folder, record)


def _agreed(same: list[Run]) -> Run | None:
    """The one run of a signature, a finished one first; None if finished copies disagree."""
    finished = [run for run in same if run.done]
    if len({json.dumps(run.record["scores"], sort_keys=True) for run in finished}) > 1:
        return None
    return (finished or same)[0]


def _disagreements(same: list[Run]) -> Iterator[Problem]:
    for run in same:
        others = ", ".join(str(o.folder) for o in same if o is not run)
        yield Problem(
            run.folder / "record.json",
            f"has the signature {run.signature}, as has {others}, but other scores; none of them "
            "is used until you delete or move away the wrong ones",
        )


def _scores(by_rank: Record) -> Scores:
    return {
        int(rank): {name: _number(value) for name, value in values.items()}
        for rank, values in by_rank.items()
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _flat(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def read_lines(path: Path) -> list[str] | None:
    """The lines of a text file; None if it is not there or is no text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text.removesuffix("\n").split("\n") if text else []
