"""E2E, DART and WebNLG 2017: from the published files to inputs and references.

Inputs are linearized, and references chosen and grouped, as in LoRA's recipe (arXiv 2106.09685,
microsoft/LoRA examples/NLG), on which the tables of DyLoRA stand:

- E2E: `name : X | Type : Y`;
- WebNLG and DART: `subject : property : object | subject : ...`, DART's property in lower case;
- of WebNLG's texts only those that their annotators marked "good";
- outside training, inputs that read the same after linearization are one input with all of their
  references. E2E has 630 such inputs in its test set, WebNLG 1862. DART's 5097 test entries give
  4159: many differ in nothing but the text, so that counting entries would count inputs twice.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from datasets import Dataset

from dylora.errors import UserError
from dylora.suite.config import TaskConfig
from dylora.tasks.base import Splits, split_files
from dylora.tasks.data2text_files import Entry, read_e2e, read_entries

# The categories of WebNLG 2017's training set; all others are "unseen".
SEEN_CATEGORIES = {"Airport", "Astronaut", "Building", "City", "ComicsCharacter", "Food"}
SEEN_CATEGORIES |= {"Monument", "SportsTeam", "University", "WrittenWork"}
Pair = tuple[str, str]  # source, reference


def load_e2e(task: TaskConfig, data: Path) -> Splits:
    """The E2E challenge (restaurants), from CSV files or LoRA's text files.

    Raises UserError naming the file and row that cannot be used.
    """

    def read(path: Path) -> list[Pair]:
        return [(row.source, row.reference) for row in read_e2e(path)]

    return _load(task, data, read)


def load_dart(task: TaskConfig, data: Path) -> Splits:
    """DART 1.1.1 (open-domain triples), from JSON or XML files.

    Raises UserError naming the file and entry that cannot be used.
    """

    def read(path: Path) -> list[Pair]:
        return [
            (_linearize(entry, lower_property=True), reference.text)
            for entry in read_entries(path)
            for reference in entry.references
        ]

    return _load(task, data, read)


def load_webnlg(task: TaskConfig, data: Path) -> Splits:
    """WebNLG 2017 (DBpedia triples), from JSON files, XML files or folders of XML files.

    Outside training the column `part` is "seen" for categories of the training set, else "unseen".
    Raises UserError naming the file and entry that cannot be used.
    """
    part: dict[str, str] = {}

    def read(path: Path) -> list[Pair]:
        entries = read_entries(path)
        for entry in entries:
            seen = entry.category in SEEN_CATEGORIES
            part[_linearize(entry)] = "seen" if seen else "unseen"
        return [
            (_linearize(entry), reference.text)
            for entry in entries
            for reference in entry.references
            if reference.comment == "good"
        ]

    splits = _load(task, data, read)
    for name, split in splits.items():
        if name != "train":
            splits[name] = split.add_column("part", [part[s] for s in split["source"]])
    return splits


def _linearize(entry: Entry, lower_property: bool = False) -> str:
    return " | ".join(
        f"{subject} : {relation.lower() if lower_property else relation} : {value}"
        for subject, relation, value in entry.triples
    )


def _load(task: TaskConfig, data: Path, read: Callable[[Path], list[Pair]]) -> Splits:
    folder = data / task.folder
    splits: Splits = {}
    for name, file in split_files(task).items():
        if not (folder / file).exists():
            raise UserError(
                f"{folder / file} not found: fetch it with `dylora prepare-data "
                f"task={task.name} paths.data={data}`, or name another file there with "
                f"task.files.{name}=FILE (its forms are in conf/task/{task.name}.yaml)"
            )
        pairs = read(folder / file)
        if not pairs:
            raise UserError(f"{folder / file}: no entry has a text marked good")
        splits[name] = _per_reference(pairs) if name == "train" else _per_input(pairs)
    return splits


def _per_reference(pairs: Iterable[Pair]) -> Dataset:
    sources, targets = zip(*pairs, strict=True)
    return Dataset.from_dict({"source": list(sources), "target": list(targets)})


def _per_input(pairs: Iterable[Pair]) -> Dataset:
    references: dict[str, list[str]] = {}
    for source, reference in pairs:
        references.setdefault(source, []).append(reference)
    return Dataset.from_dict({"source": list(references), "references": list(references.values())})
