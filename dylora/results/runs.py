"""All run records of a folder, read once for tables, figures and the report. No torch here."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dylora.errors import UserError
from dylora.methods import METHODS
from dylora.suite.config import Config
from dylora.suite.records import SCHEMA, Record, read_record

SCHEMA_DEFAULTS: dict[str, Any] = asdict(Config())
LIMITS = ("train.max_steps", "task.max_train_rows", "task.max_eval_rows", "task.holdout")
_LIMITED = {name.partition(".")[2] for name in LIMITS}
PARTS: dict[str, type] = {
    **dict.fromkeys(("signature", "task", "model", "method"), str),
    "seed": int,
    "config": dict,
    "scores": dict,
}
FINISHED_PARTS: dict[str, type] = {"parameters": dict, "times": dict}
OPTIONAL_PARTS = ("device", "metrics", "truncations")
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
    """One run, finished or not; `record` is its record.json without the history."""

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

    def history(self) -> Record:
        """Losses per step and scores per epoch, read from the file again as they are long."""
        record = read_record(self.folder)
        return {} if record is None else record.get("history", {})

    def output(self, split: str, rank: int) -> list[str] | None:
        """What the run predicted at a rank, a line per example; None if it was not kept."""
        return read_lines(self.folder / "outputs" / f"{split}.rank{rank}.txt")

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
    path = folder / "record.json"
    try:
        record = json.loads(_without_history(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path}: is not there; delete this folder and run again") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it to run again") from error
    fault = _fault(record)
    if fault:
        raise UserError(f"{path}: {fault}")
    return Run(folder, record)


def _without_history(text: str) -> str:
    """The text of a record with an empty history: thousands of steps, six times the rest's work.

    Cut by the indentation that `write_record` gives to a record; a text without it stays whole. No
    string of JSON can hold these marks, as it has no line breaks.
    """
    begin = text.find('\n "history": {')
    end = text.find("\n }", begin)
    return text if begin < 0 or end < 0 else f'{text[:begin]}\n "history": {{{text[end:]}'


def _fault(record: Any) -> str:
    """Why a record cannot be used and what to do about it; empty if it can."""
    if not isinstance(record, dict) or "status" not in record:
        return "is no run record; delete it to run again"
    again = f"run again with force=true: {record.get('command', 'the same command')}"
    schema = record.get("schema")
    if schema != SCHEMA:
        if isinstance(schema, int) and schema > SCHEMA:
            return f"has schema {schema}, newer than this version's {SCHEMA}; update dylora"
        return f"has the older schema {schema}, this version reads {SCHEMA}; {again}"
    needed = PARTS | (FINISHED_PARTS if record["status"] == "done" else {})
    wrong = [part for part, kind in needed.items() if not isinstance(record.get(part), kind)]
    wrong += [part for part in OPTIONAL_PARTS if not isinstance(record.get(part, {}), dict)]
    if wrong:
        return f"is incomplete, without a usable {' or '.join(wrong)}; {again}"
    if record["method"] not in METHODS:
        return f"has method={record['method']}, which dylora.methods does not know; add it there"
    if not _is_config(record["config"], SCHEMA_DEFAULTS):
        return f"has no configuration of the usual form; {again}"
    if not all(map(_are_scores, [record["scores"], *record.get("truncations", {}).values()])):
        return f"has no scores of the usual form; {again}"
    if record["status"] == "done":
        if not record["scores"]:
            return f"says that it is done but has no scores; {again}"
        if not all(_is_number(record["times"].get(stage)) for stage in ("train", "evaluate")):
            return f"has no times of the usual form; {again}"
    return ""


def _is_config(values: dict[str, Any], defaults: dict[str, Any]) -> bool:
    """Whether groups are groups and lists are lists, where the record has them at all."""
    for key, default in defaults.items():
        value = values.get(key, default)
        if isinstance(value, dict) != isinstance(default, dict):
            return False
        if isinstance(default, dict) and not _is_config(value, default):
            return False
        if isinstance(default, list) and not _are_names(value):
            return False
        if key in _LIMITED and not (value is None or isinstance(value, int)):
            return False
    return True


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_scores(scores: dict[str, Any]) -> bool:
    """Whether this is {"1": {"accuracy": 0.9}, ...}."""
    return all(
        rank.isdecimal()
        and isinstance(values, dict)
        and all(value is None or _is_number(value) for value in values.values())
        for rank, values in scores.items()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


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
