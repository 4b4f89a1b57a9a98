"""Score a system's outputs on E2E, WebNLG or DART with the official metrics.

dylora score task=e2e references=testset_w_refs.csv predictions=outputs.txt
dylora score task=webnlg references=ref0.lex,ref1.lex,ref2.lex predictions=outputs.txt

  task=         e2e, webnlg or dart
  predictions=  plain text, one output per line, in the order of the distinct inputs; an empty line
                is an empty output; or a table with the columns mr and output (or ref), as E2E's own
                scripts take it
  references=   one or more files, with commas between; * and ? work in names:
                  a table .csv or .tsv with the columns mr and ref (E2E): inputs in order of first
                  appearance;
                  a text file with the references of each input in a block, blank lines between;
                  several text files with one reference per line; an empty line is a missing one
  protocol=     challenge (default): the organizers' scoring, text as given, 3 references at most
                generation_eval (webnlg, dart): that of the tables of LoRA and DyLoRA, lower-cased,
                split at every non-word character, 6 references at most
  metrics=      only these, with commas between: BLEU NIST METEOR ROUGE_L CIDEr TER
  format=       table (default, with signatures) or json (one object; null for a dash)

BLEU, METEOR, ROUGE_L and TER are in percent. METEOR, ROUGE_L and CIDEr need Java; without it they
are a dash and the others are still printed.
"""

import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from omegaconf import ListConfig, OmegaConf
from yaml import YAMLError

from dylora.errors import UserError
from dylora.metrics import METRICS
from dylora.metrics.nlg import Score, score

KEYS = ("task", "predictions", "references", "protocol", "metrics", "format")
FORMATS = ("table", "json")
USAGE = "type `dylora score --help` for all options"


@dataclass(frozen=True)
class Options:
    task: str
    predictions: Path
    references: list[Path]
    protocol: str | None
    metrics: list[str] | None
    format: str


def parse(arguments: Sequence[str]) -> Options:
    """Options from key=value words; UserError names an unknown, missing or wrong one."""
    values: dict[str, list[str]] = {}
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals or key not in KEYS:
            near = get_close_matches(key.lstrip("-"), KEYS, n=1)
            hint = f"did you mean {near[0]}=...? " if near else ""
            raise UserError(f"unknown option '{argument}': {hint}{USAGE}")
        values[key] = _values(argument)
    for key in ("task", "references", "predictions"):
        if not values.get(key):
            raise UserError(f"{key}=... is missing: {USAGE}")
    for key in ("task", "predictions", "protocol", "format"):
        if len(values.get(key, [""])) != 1:
            raise UserError(f"{key}= takes one value, not {','.join(values[key]) or 'none'}")
    output = values.get("format", ["table"])[0]
    if output not in FORMATS:
        raise UserError(f"unknown format '{output}': type format={' or format='.join(FORMATS)}")
    return Options(
        task=values["task"][0],
        predictions=Path(values["predictions"][0]).expanduser(),
        references=[path for name in values["references"] for path in _paths(name)],
        protocol=values.get("protocol", [None])[0],
        metrics=values.get("metrics") or None,
        format=output,
    )


def _values(argument: str) -> list[str]:
    """The value of a key=value word as a list: `a,b`, `[a,b]` or the path of a file with commas."""
    text = argument.partition("=")[2]
    if Path(text).expanduser().is_file():
        return [text]
    try:
        value = OmegaConf.from_cli([argument])[argument.partition("=")[0]]
    except YAMLError:  # `*.lex` is a path here, but an alias in YAML
        value = text
    items = value if isinstance(value, ListConfig) else text.split(",")
    return [str(item).strip() for item in items if str(item).strip()]


def _paths(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.exists() or not re.search(r"[*?]", path.name):
        return [path]
    found = [each for each in path.parent.glob(path.name) if each.is_file()]
    if not found:
        raise UserError(f"references={name}: no file matches")
    # reference10 comes after reference9.
    return sorted(found, key=lambda each: [part.zfill(9) for part in re.split(r"(\d+)", each.name)])


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].count(b"\n")
        raise UserError(f"{path}: line {before + 1} is not UTF-8: convert the file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def read_lines(path: Path) -> list[str]:
    """Lines without their ends; a line end at the end of the file does not start another one."""
    lines = read_text(path).split("\n")
    return lines[:-1] if not lines[-1] else lines


def read_references(paths: Sequence[Path]) -> list[list[str]]:
    """References per input from a table, a file of blocks, or files with a reference per line."""
    if len(paths) == 1:
        if _is_table(paths[0]):
            return list(_grouped(paths[0]).values())
        lines = read_lines(paths[0])
        if any(not line.strip() for line in lines):
            return [block.split("\n") for block in _blocks(lines)]
        return [[line] for line in lines]
    columns = [read_lines(path) for path in paths]
    counts = {len(column) for column in columns}
    if len(counts) > 1:
        listing = ", ".join(f"{p}: {len(c)}" for p, c in zip(paths, columns, strict=True))
        raise UserError(f"the reference files have different numbers of lines ({listing})")
    return [list(group) for group in zip(*columns, strict=True)]


def _blocks(lines: Sequence[str]) -> list[str]:
    text = "\n".join(line.strip() for line in lines)
    return [block for block in re.split(r"\n\n+", text.strip("\n")) if block]


def read_predictions(path: Path, references: Sequence[Path]) -> list[str]:
    """An output per input; those of a table in the order of the references, if they are one too."""
    if not _is_table(path):
        return read_lines(path)
    outputs = _grouped(path)
    twice = next((mr for mr, texts in outputs.items() if len(texts) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: has several outputs for {twice}: keep one")
    if len(references) == 1 and _is_table(references[0]):
        inputs = _grouped(references[0])
        if inputs.keys() != outputs.keys():
            odd = next(iter(inputs.keys() ^ outputs.keys()))
            raise UserError(f"{path}: has not the inputs of {references[0]}, such as {odd}")
        return [outputs[mr][0] for mr in inputs]
    return [texts[0] for texts in outputs.values()]


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def _grouped(path: Path) -> dict[str, list[str]]:
    """The texts of a table by their input; a .tsv has no quotes around its fields."""
    if path.suffix.lower() == ".tsv":
        rows = csv.DictReader(StringIO(read_text(path)), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.DictReader(StringIO(read_text(path)), strict=True)
    groups: dict[str, list[str]] = {}
    try:
        names = [name.strip().lower() for name in rows.fieldnames or ()]
        rows.fieldnames = names
        text = next((name for name in ("ref", "output") if name in names), None)
        if "mr" not in names or text is None:
            found = ", ".join(names) or "nothing"
            raise UserError(f"{path}: the first line must name the columns mr and ref, not {found}")
        for row in rows:
            if row[text] is None or None in row:
                raise UserError(f"{path}: line {rows.line_num} has not the columns of line 1")
            groups.setdefault(row["mr"], []).append(row[text])
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.line_num} is not CSV: {error}") from error
    return groups


def table(options: Options, scores: dict[str, Score], outputs: int) -> str:
    lines = [f"{options.task}: {outputs} outputs of {options.predictions}"]
    for name, result in scores.items():
        digits = 2 if METRICS[name].unit.points else 4  # one text's score, not a mean over seeds
        value = "-" if result.value is None else f"{result.value:.{digits}f}"
        lines.append(f"{name:<8}{value:>9}  {result.signature}")
    return "\n".join(lines)


def run(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    references = read_references(options.references)
    predictions = read_predictions(options.predictions, options.references)
    if len(predictions) != len(references):
        names = ", ".join(map(str, options.references))
        raise UserError(
            f"{options.predictions} has {len(predictions)} lines, but {names} have references for "
            f"{len(references)} inputs: give plain text with one output per line"
        )
    scores = score(options.task, references, predictions, options.protocol, options.metrics)
    for name, result in scores.items():
        if result.reason is not None:
            print(f"{name}: - ({result.reason})", file=sys.stderr)
    if options.format == "json":
        values = {n: s.value if s.value is None else round(s.value, 6) for n, s in scores.items()}
        print(json.dumps(values))
    else:
        print(table(options, scores, len(predictions)))


def main(arguments: Sequence[str]) -> int:
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(__doc__)
        return 0
    try:
        run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
