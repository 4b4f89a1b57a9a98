"""The command line's manners: options as key=value, mistakes explained in one message."""

import inspect
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from itertools import takewhile
from typing import TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dylora.errors import UserError
from dylora.suite.records import ABSENT, Record

T = TypeVar("T")
# PEFT imports it where it is installed, and it advises on a package for 4 bits at every start.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def plain_errors(*more: type[BaseException]) -> Iterator[None]:
    """End the program with one message, no traceback: status 2 on a mistake, 130 when stopped."""
    mistakes: tuple[type[BaseException], ...] = (UserError, OmegaConfBaseException, *more)
    try:
        yield
    except mistakes as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as error:  # Ctrl-C, or training that was asked to stop
        print(str(error) or "interrupted", file=sys.stderr)
        sys.exit(130)


def explain(error: BaseException) -> str:
    """What was wrong, and for a misspelled option the names that would be right."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException) and is_dataclass(cause.object_type):
            return _explain_option(cause)
        cause = cause.__cause__
    return str(error).partition("\nConfig search path")[0].rstrip()  # Hydra's, of no use here


def _explain_option(error: OmegaConfBaseException) -> str:
    schema = error.object_type
    assert schema is not None
    names = [f.name for f in fields(schema)]
    if error.key in names:
        return f"{error.full_key}: {error.msg or error}".partition("\n")[0]
    group = (error.full_key or "").rpartition(".")[0]
    near = get_close_matches(str(error.key), names, n=1, cutoff=0.5)
    meant = f"; did you mean {f'{group}.' if group else ''}{near[0]}?" if near else ""
    return (
        f"there is no option {error.full_key}{meant}\n{group or 'the options'}: {', '.join(names)}"
    )


def options(schema: type[T], usage: str | None, first: str | None = None) -> T:
    """The command line's `key=value` arguments as a `schema` dataclass; `--help` prints them.

    `first` is the option that a first argument without a name sets; all of them, if it is a list.
    Raises UserError or omegaconf's errors, which `plain_errors` explains.
    """
    arguments = sys.argv[1:]
    unnamed = list(takewhile(lambda a: "=" not in a and not a.startswith("-"), arguments))
    if first and unnamed:
        several = OmegaConf.is_list(OmegaConf.structured(schema)[first])
        taken = unnamed if several else unnamed[:1]
        value = json.dumps(taken) if several else taken[0]
        arguments[: len(taken)] = [f"{first}={value}"]
    if not {"-h", "--help"}.isdisjoint(arguments):
        print(f"{usage}\noptions:\n" + "\n".join(_described(schema)))
        sys.exit(0)
    bare = [argument for argument in arguments if "=" not in argument]
    if bare:
        raise UserError(f"{bare[0]!r} is not key=value; --help lists the options")
    given = OmegaConf.from_cli(arguments)
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), given))
    assert isinstance(made, schema)
    return made


def _described(schema: type, prefix: str = "") -> Iterator[str]:
    """Each option of a dataclass with its default, and with what the comment beside it says."""
    defaults = OmegaConf.structured(schema)
    comments = {name: text for base in reversed(schema.__mro__) for name, text in _comments(base)}
    for option in fields(schema):
        name, value = f"{prefix}{option.name}", defaults[option.name]
        if OmegaConf.is_dict(value):
            yield from _described(type(OmegaConf.to_object(value)), f"{name}.")
            continue
        shown = (
            "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        )
        comment = comments.get(option.name, "")
        yield f"  {f'{name}={shown}':<34} {comment}".rstrip()


def _comments(schema: type) -> list[tuple[str, str]]:
    """The comments that stand on the lines of a dataclass's fields in its source."""
    if not is_dataclass(schema):
        return []
    found = re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(schema), re.MULTILINE)
    return [(name, comment) for name, comment in found]


def left_out(problems: Iterable[object]) -> int:
    """Print what a script could not use; its exit status: 0 if that is nothing, else 1."""
    found = [f"left out: {problem}" for problem in problems]
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


def score_table(record: Record) -> str:
    """The record's scores as text, a row per rank, and why any are missing.

    Ranks that predict the same for every example are marked, and the last row is what always
    giving the most frequent label would score.
    """
    names = list(next(iter(record["scores"].values())))
    lines = ["rank  " + "  ".join(f"{name:>10}" for name in names)]
    for rank, values in record["scores"].items():
        cells = (_cell(values[name], max(10, len(name))) for name in names)
        same = record.get("constant", {}).get(rank)
        mark = "" if same is None else f"  {same[:40]!r} for every example"
        lines.append(f"{rank if rank != '0' else '-':>4}  " + "  ".join(cells) + mark)
    if most := record.get("majority"):
        cells = (_cell(most.get(name), max(10, len(name))) for name in names)
        lines.append(f"{'-':>4}  " + "  ".join(cells) + "  most frequent label, untrained")
    absent = {n: text for n, text in record.get("metrics", {}).items() if text.startswith(ABSENT)}
    return "\n".join([*lines, *(f"{name} {text}" for name, text in absent.items())])


def _cell(value: float | None, width: int) -> str:
    return f"{'-' if value is None else f'{value:.4f}':>{width}}"
