"""GLUE's test sets, which have no labels, and the files that its leaderboard takes for them."""

from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset

from dylora.errors import UserError
from dylora.suite.config import Kind, TaskConfig
from dylora.tasks.glue import load_glue

LOWEST, HIGHEST = 0.0, 5.0  # of STS-B's scores


@dataclass(frozen=True)
class Sheet:
    """One file of a submission, and the test set that it answers."""

    name: str  # in the submission
    split: str = "test"  # on the hub
    file: str = "test.tsv"
    folder: str | None = None  # below the data folder; null: the task's
    hub_config: str | None = None  # null: the task's


SHEETS = {  # by the task's name on the hub; MNLI's runs also answer the diagnostic set
    "cola": [Sheet("CoLA.tsv")],
    "sst2": [Sheet("SST-2.tsv")],
    "mrpc": [Sheet("MRPC.tsv")],
    "stsb": [Sheet("STS-B.tsv")],
    "qqp": [Sheet("QQP.tsv")],
    "mnli": [
        Sheet("MNLI-m.tsv", "test_matched", "test_matched.tsv"),
        Sheet("MNLI-mm.tsv", "test_mismatched", "test_mismatched.tsv"),
        Sheet("AX.tsv", file="diagnostic.tsv", folder="glue/AX", hub_config="ax"),
    ],
    "qnli": [Sheet("QNLI.tsv")],
    "rte": [Sheet("RTE.tsv")],
    "wnli": [Sheet("WNLI.tsv")],
}


def read_sheet(task: TaskConfig, sheet: Sheet, data: Path) -> Dataset:
    """The rows of a test set in their order, as `load_glue` gives them, all with the label 0.

    Raises UserError naming the file that is missing or wrong.
    """
    unlabelled = replace(
        task,
        label="",
        columns=None,  # CoLA's test file has a header, unlike its others
        drop_short_rows=False,  # every row has its number
        folder=sheet.folder or task.folder,
        hub_config=sheet.hub_config or task.hub_config,
        files={sheet.split: sheet.file},
        eval_splits=[sheet.split],
    )
    path = data / unlabelled.folder / sheet.file
    if path.parent.is_dir() and not path.is_file():
        raise UserError(
            f"{path}: no such file; put GLUE's test set there, {sheet.name} is made of it"
        )
    return load_glue(unlabelled, data)[sheet.split]


def answer(task: TaskConfig, predicted: float) -> str:
    """A class id, or the score of a regression, in the words of the leaderboard."""
    if task.kind == Kind.classification:
        return task.labels[int(predicted)]
    return f"{min(max(predicted, LOWEST), HIGHEST):.3f}"
