"""What a run's record must look like, and a check that names the field that does not."""

import json
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, TypedDict, get_args, get_origin, get_type_hints
from typing import is_typeddict as is_typed_dict

from dylora.methods import METHODS
from dylora.suite.config import Config

SCHEMA = 2  # of the files of a run; raised when their form changes

LARGEST = 1e300  # of any number, so that it can be shown in percent and added up

Scores = dict[str, dict[str, float | None]]  # rank -> metric -> value; rank "0": no adapter


class Times(TypedDict):
    """Seconds of the stages of a run."""

    train: float
    evaluate: float
    prepare: NotRequired[float]
    truncations: NotRequired[float]


class StartedRecord(TypedDict):
    """The fields of any run that are read back; a record may have more.

    `config` has the options in groups. One that is newer than the record has its default.
    """

    schema: int
    status: Literal["running", "done", "failed", "interrupted"]
    signature: str
    task: str
    model: str
    method: str
    seed: int
    config: Config
    scores: Scores
    truncations: NotRequired[dict[str, Scores]]
    command: NotRequired[str]
    error: NotRequired[str]
    device: NotRequired[dict[str, str | int]]
    metrics: NotRequired[dict[str, str]]
    data: NotRequired[dict[str, dict[str, int | str]]]  # split -> rows and their hash
    constant: NotRequired[dict[str, str]]  # rank -> what it predicts for every example
    majority: NotRequired[dict[str, float]]  # scores of the most frequent training label
    started: NotRequired[str]
    git: NotRequired[dict[str, str | None] | None]
    packages: NotRequired[dict[str, str | None]]
    platform: NotRequired[str]
    best_epoch: NotRequired[int | None]
    peak_memory_bytes: NotRequired[dict[str, int | None]]


class FinishedRecord(StartedRecord):
    """The fields of a run that is done."""

    parameters: dict[str, int]
    times: Times


def fault(record: Any) -> str:
    """Why a record cannot be used and what to do about it; empty if it can."""
    if not isinstance(record, dict) or "status" not in record:
        return "is no run record; delete it to run again"
    again = f"run again with force=true: {record.get('command', 'the same command')}"
    schema = record.get("schema")
    if schema != SCHEMA:
        if isinstance(schema, int) and schema > SCHEMA:
            return f"has schema {schema}, newer than this version's {SCHEMA}; update dylora"
        return f"has the older schema {schema}, this version reads {SCHEMA}; {again}"
    done = record["status"] == "done"
    problem = misfit(record, FinishedRecord if done else StartedRecord) or _no_rank(record)
    if not problem and done and not record["scores"]:
        problem = "says that it is done but has no scores"
    if not problem and record["method"] not in METHODS:
        return f"has method={record['method']}, which dylora.methods does not know; add it there"
    return f"{problem}; {again}" if problem else ""


def _no_rank(record: dict[str, Any]) -> str:
    for scores in (record["scores"], *record.get("truncations", {}).values()):
        for rank in scores:
            if not rank.isdecimal():
                return f"has scores of {rank!r}, which is no rank"
    return ""


def misfit(value: Any, form: Any, name: str = "") -> str:
    """The first field of `value` that does not have the form of a type; empty if all do.

    A `TypedDict` needs its required fields; a dataclass has defaults for those that are missing.
    """
    if type(value) in (int, float) and abs(value) > LARGEST:
        return _wrong(name, value, f"no larger than {LARGEST:g}")
    if form is Any or type(value) is form:
        return ""
    kind = get_origin(form) or form
    if kind is UnionType:
        problems = [misfit(value, choice, name) for choice in get_args(form)]
        return "" if "" in problems else problems[0]
    if is_typed_dict(kind) or is_dataclass(kind):
        return _misfit_field(value, kind, name)
    if kind in (dict, list):
        if type(value) is not kind:
            return _wrong(name, value, _NAMES[kind])
        items = value.items() if kind is dict else enumerate(value)
        inner = (misfit(item, get_args(form)[-1], _inside(name, key)) for key, item in items)
        return next(filter(None, inner), "")
    if kind is Literal or issubclass(kind, Enum):
        choices = get_args(form) or [choice.value for choice in form]
        return "" if value in choices else _wrong(name, value, f"one of {', '.join(choices)}")
    whole = form is float and type(value) is int
    return "" if whole else _wrong(name, value, _NAMES[form])


def _misfit_field(value: Any, kind: Any, name: str) -> str:
    if type(value) is not dict:
        return _wrong(name, value, _NAMES[dict])
    for field, form in _hints(kind).items():
        if field in value:
            problem = misfit(value[field], form, _inside(name, field))
            if problem:
                return problem
        elif field in getattr(kind, "__required_keys__", ()):
            return f"has no {_inside(name, field)}"
    return ""


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _inside(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _wrong(name: str, value: Any, expected: str) -> str:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
    return f"has {name} = {shown}, which should be {expected}"


_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    dict: "a group of fields",
    list: "a list",
}
