"""scripts/submission.py: GLUE's test sets answered by runs, as its leaderboard takes them."""

import json
import random
import runpy
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import WORDS, compose_config
from table_records import write_run
from task_yaml import task_config
from tiny import save_roberta

from dylora.suite.config import Kind, TaskConfig
from dylora.tasks.leaderboard import SHEETS, answer, read_sheet
from dylora.training import experiment

SCRIPT = str(Path(__file__).parents[1] / "scripts" / "submission.py")
OFFICIAL = {
    *("CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "QQP.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"),
    *("QNLI.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv"),
}
# task -> its folder, the columns of train and dev, of test, and the labels
FILES = {
    "cola": ("CoLA", "", "index sentence", ["0", "1"]),
    "stsb": ("STS-B", "index sentence1 sentence2 score", "index sentence1 sentence2", ["0.0", "5"]),
    "mnli": (
        "MNLI",
        "index sentence1 sentence2 gold_label",
        "index sentence1 sentence2",
        ["entailment", "neutral", "contradiction"],
    ),
}
ROWS = 24
Script = Callable[..., str]


def write_split(path: Path, header: str, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header.replace(" ", "\t")] if header else []
    path.write_text("\n".join([*lines, *("\t".join(row) for row in rows)]) + "\n")


def write_task(data: Path, task: str) -> None:
    """Made-up sentences; the test set has those of the development set in reverse."""
    folder, header, test_header, labels = FILES[task]
    draw = random.Random(task)
    texts = 1 if task == "cola" else 2
    rows = [[" ".join(draw.choices(WORDS, k=4)) for _ in range(texts)] for _ in range(ROWS)]
    if task == "cola":
        known = [["gj04", labels[i % 2], "", *row] for i, row in enumerate(rows)]
    else:
        known = [[str(i), *row, labels[i % len(labels)]] for i, row in enumerate(rows)]
    test = [[str(i), *row] for i, row in enumerate(reversed(rows))]
    endings = ["_matched", "_mismatched"] if task == "mnli" else [""]
    write_split(data / "glue" / folder / "train.tsv", header, known)
    for ending in endings:
        write_split(data / "glue" / folder / f"dev{ending}.tsv", header, known)
        write_split(data / "glue" / folder / f"test{ending}.tsv", test_header, test)
    if task == "mnli":
        write_split(data / "glue" / "AX" / "diagnostic.tsv", test_header, test[:5])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A data folder, and the folder of a finished run of each task."""
    home = tmp_path_factory.mktemp("glue")
    save_roberta(home / "model", [" ".join(WORDS)] * 3)
    runs = {}
    for task in FILES:
        write_task(home / "data", task)
        made = compose_config(
            f"task={task}",
            "model.name=tiny",
            f"model.name_or_path={home / 'model'}",
            "method.max_rank=2",
            "train.epochs=3",
            "train.batch_size=8",
            "train.learning_rate=0.05",
            f"paths.data={home / 'data'}",
            f"paths.results={home / 'results'}",
            "device=cpu",
        )
        experiment.run(made, f"dylora run task={task}")
        [runs[task]] = (home / "results" / "records").glob(f"{task}-*")
    return home / "data", runs


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Script:
    """Run the script in this process; what it prints, or its error message after "!"."""

    def run(*arguments: object) -> str:
        output = f"output={tmp_path / 'made' / 'answers.zip'}"
        monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments), output])
        try:
            runpy.run_path(SCRIPT, run_name="__main__")
        except SystemExit as end:
            assert end.code == 2 and not (tmp_path / "made").exists()
            return "!" + capsys.readouterr().err
        return capsys.readouterr().out

    return run


def columns(path: Path) -> dict[str, list[str]]:
    """The predictions of each file of the zip, after a look at the header and the numbers."""
    found = {}
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            header, *rows = file.read(name).decode().removesuffix("\n").split("\n")
            assert header == "index\tprediction"
            numbers, found[name] = zip(*(row.split("\t") for row in rows), strict=True)
            assert numbers == tuple(map(str, range(len(rows))))
    return {name: list(values) for name, values in found.items()}


def test_a_submission_has_the_predictions_of_each_run_at_the_rank(
    trained: tuple[Path, dict[str, Path]], script: Script, tmp_path: Path
) -> None:
    data, runs = trained
    scores = {}
    for rank in (1, 2):
        said = script(*runs.values(), f"rank={rank}", f"paths.data={data}")
        assert "the leaderboard also wants SST-2.tsv, MRPC.tsv" in said
        made = columns(tmp_path / "made" / "answers.zip")
        assert list(made) == ["CoLA.tsv", "STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"]
        for name, task in {"CoLA.tsv": "cola", "MNLI-m.tsv": "mnli"}.items():
            split = "validation_matched" if task == "mnli" else "validation"
            kept = (runs[task] / "outputs" / f"{split}.rank{rank}.txt").read_text().split()
            assert made[name] == kept[::-1]
        assert made["AX.tsv"] == made["MNLI-mm.tsv"][:5] == made["MNLI-m.tsv"][:5]
        kept = (runs["stsb"] / "outputs" / f"validation.rank{rank}.txt").read_text().split()
        scores[rank] = [float(text) for text in made["STS-B.tsv"]]
        clipped = [min(max(float(text), 0), 5) for text in kept[::-1]]
        assert scores[rank] == pytest.approx(clipped, abs=2e-3)
    assert scores[1] != scores[2]


def test_the_sheets_are_those_of_the_leaderboard() -> None:
    assert {sheet.name for sheets in SHEETS.values() for sheet in sheets} == OFFICIAL


@pytest.mark.parametrize(
    ("predicted", "text"), [(-0.2, "0.000"), (2.34567, "2.346"), (5.1, "5.000")]
)
def test_scores_stay_on_the_scale_of_stsb(predicted: float, text: str) -> None:
    assert answer(TaskConfig(name="stsb", kind=Kind.regression), predicted) == text


@pytest.mark.parametrize("task", ["cola", "sst2", "mrpc", "stsb", "qnli", "rte", "wnli"])
def test_the_real_test_sets_are_read_whole_and_in_order(shared_data: Path, task: str) -> None:
    config = task_config(task)
    [sheet] = SHEETS[task]
    path = shared_data / config.folder / sheet.file
    header, *lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    column = header.split("\t").index(config.text[-1])
    rows = read_sheet(config, sheet, shared_data)
    assert [line.split("\t")[0] for line in lines] == [str(i) for i in range(len(rows))]
    last = "text_b" if len(config.text) == 2 else "text_a"
    assert rows[last][:] == [line.split("\t")[column] for line in lines]


def test_the_real_diagnostic_set_is_read_for_mnli(shared_data: Path) -> None:
    rows = read_sheet(task_config("mnli"), SHEETS["mnli"][-1], shared_data)
    assert len(rows) == 1104 and rows["text_b"][0] == "The cat did not sit on the mat."


def without(run: Path, home: Path, **changes: object) -> Path:
    """A copy of a run without its adapter, its record changed."""
    copy = home / run.name
    shutil.copytree(run, copy)
    (copy / "adapter.safetensors").unlink()
    record = json.loads((copy / "record.json").read_text()) | changes
    (copy / "record.json").write_text(json.dumps(record))
    return copy


def test_what_cannot_be_used_gets_one_message(
    trained: tuple[Path, dict[str, Path]], script: Script, tmp_path: Path
) -> None:
    data, runs = trained
    cola = runs["cola"]
    other = write_run(tmp_path, task="words", scores={1: 0.5})
    bare = without(cola, tmp_path)
    unfinished = without(runs["mnli"], tmp_path, status="failed")
    for arguments, said in {
        (): "name a run for each task",
        (cola,): "say which rank, such as rank=4",
        (cola, "rank=[1,2]"): "say which rank",
        (cola, "rank=3"): "rank=3: the run has ranks 1 to 2",
        (cola, cola, "rank=1"): "is of cola too; name one of them",
        (other, "rank=1"): "words is no task of GLUE",
        (unfinished, "rank=1"): "the run is failed; finish it first",
        (bare, "rank=1"): "adapter.safetensors: is not there",
        (tmp_path / "x", "rank=1"): "no such run",
    }.items():
        message = script(*arguments, f"paths.data={data}")
        assert message.startswith("!error: ") and said in message and "Traceback" not in message


def test_a_missing_test_set_is_named(
    trained: tuple[Path, dict[str, Path]], script: Script, tmp_path: Path
) -> None:
    data, runs = trained
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "glue" / "CoLA" / "test.tsv").unlink()
    said = script(runs["cola"], "rank=auto", f"paths.data={tmp_path / 'data'}")
    assert said.startswith("!") and "CoLA/test.tsv: no such file; put GLUE's test set there" in said
