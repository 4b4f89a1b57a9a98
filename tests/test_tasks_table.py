"""A user's own table gives labeled text, or one error naming file and row."""

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from datasets import Value
from task_yaml import task_config

from dylora.errors import UserError
from dylora.suite.config import Kind, TaskConfig
from dylora.tasks import LOADERS
from dylora.tasks.base import hold_out, own_rows
from dylora.tasks.glue import load_glue
from dylora.tasks.table import load_table

ROWS = [
    {"title": "Broken, again", "body": 'He said "no"\nand left', "queue": "technical"},
    {"title": "Invoice", "body": "", "queue": "billing"},
]
EXPECTED = {
    "text_a": ["Broken, again", "Invoice"],
    "text_b": ['He said "no"\nand left', ""],
    "label": [1, 0],
}
CSV = (
    "queue,title,body\n"
    'technical,"Broken, again","He said ""no""\nand left"\n'
    "billing,Invoice,\n"
)  # fmt: skip


def tickets(place: Path, file: str, content: str | bytes, **changes: Any) -> TaskConfig:
    """The custom task on one file, which serves as both splits."""
    (place / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return task_config(
        "custom",
        **{
            "folder": str(place),
            "files": {"train": file, "validation": file},
            "text": ["title", "body"],
            "label": "queue",
            "labels": ["billing", "technical"],
        }
        | changes,
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("t.csv", CSV),
        ("t.csv", CSV.replace("Invoice,\n", "Invoice,\r\n\r\n").encode("utf-8-sig")),
        ("t.json", json.dumps(ROWS, indent=1)),
        ("t.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
        ("t.jsonl", "\n\n".join(json.dumps(row) for row in ROWS) + "\n\n"),
    ],
    ids=["CSV", "CSV with BOM, CRLF, blank lines", "JSON", "JSON Lines", "JSON Lines, blank lines"],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, file: str, content: str | bytes) -> None:
    splits = load_table(tickets(tmp_path, file, content), Path("unused"))
    assert splits["train"][:] == EXPECTED
    assert splits["validation"][:] == EXPECTED


def test_tsv_quotes_are_plain_characters(tmp_path: Path) -> None:
    task = tickets(tmp_path, "t.tsv", 'title\tbody\tqueue\n"Hi\t5" screen\tbilling\n')
    assert load_table(task, tmp_path)["train"][0] == {
        "text_a": '"Hi', "text_b": '5" screen', "label": 0,
    }  # fmt: skip


def test_single_text_and_numeric_labels(tmp_path: Path) -> None:
    """JSON numbers and YAML numbers both stand for the class name that they print as."""
    rows = [{"title": "a", "queue": 7}, {"title": "b", "queue": 3}]
    task = tickets(tmp_path, "t.json", json.dumps(rows), text=["title"], labels=[3, 7])
    assert load_table(task, tmp_path)["train"][:] == {"text_a": ["a", "b"], "label": [1, 0]}


@pytest.mark.parametrize("values", [["1.5", "-2"], [1.5, -2]])
def test_regression(tmp_path: Path, values: list[Any]) -> None:
    rows = [{"title": "a", "queue": value} for value in values]
    task = tickets(tmp_path, "t.json", json.dumps(rows), text=["title"], labels=[])
    task.kind = Kind.regression
    split = load_table(task, tmp_path)["train"]
    assert split["label"][:] == [1.5, -2.0]
    assert split.features["label"] == Value("float32")


def test_folder_is_below_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    task = tickets(tmp_path / "mine", "t.csv", CSV, folder="mine")
    assert len(load_table(task, tmp_path)["train"]) == 2


def test_csv_without_header(tmp_path: Path) -> None:
    content = CSV.partition("\n")[2]
    task = tickets(tmp_path, "t.csv", content, columns=["queue", "title", "body"])
    assert load_table(task, tmp_path)["train"][:] == EXPECTED


def test_long_documents_are_read(tmp_path: Path) -> None:
    """Python's csv refuses cells above 131,072 characters unless told otherwise."""
    task = tickets(tmp_path, "t.csv", f"title,queue\n{'x' * 200_000},billing\n", text=["title"])
    assert len(load_table(task, tmp_path)["train"][0]["text_a"]) == 200_000


ONE = {"title": "a", "body": "b", "queue": "billing"}
BAD = {
    "missing column": ("t.csv", "title,queue\na,billing\n", r"no column 'body'.*task\.text="),
    "missing label": ("t.csv", "title,body\na,b\n", r"no column 'queue'.*task\.label="),
    "wrong width": ("t.csv", CSV + "billing,x\n", r"line 5: 2 columns instead of 3"),
    "unknown label": ("t.csv", CSV + "hr,x,y\n", r"line 5: unknown label 'hr'.*billing, tech"),
    "open quote": ("t.csv", CSV + 'billing,"x,y\n', r"line 5: not valid CSV"),
    "empty": ("t.csv", "", "the file is empty"),
    "header only": ("t.csv", "title,body,queue\n", "no rows"),
    "not UTF-8": ("t.csv", CSV.encode() + b"billing,\xff,\n", r"line 5: not UTF-8"),
    "broken JSON": ("t.json", '[{"title": "a",\n}]', r"line 2: not valid JSON"),
    "JSON object": ("t.json", json.dumps(ONE), r"not a list of objects.*\.jsonl"),
    "JSON list of texts": ("t.json", '["a"]', r"object 1: not an object"),
    "JSON key": ("t.json", json.dumps([ONE, {"title": "a"}]), r"object 2: no 'body'.*: title"),
    "JSON null": ("t.json", json.dumps([ONE | {"body": None}]), r"object 1: no 'body'"),
    "JSON number": ("t.json", json.dumps([ONE | {"body": 5}]), r"object 1: 'body' is no text"),
    "JSON no rows": ("t.json", "[]", "no rows"),
    "broken JSON line": ("t.jsonl", json.dumps(ONE) + "\n\n{x}\n", r"line 3: not valid JSON"),
    "JSON label": ("t.jsonl", json.dumps(ONE | {"queue": 1}), r"line 1: unknown label '1'"),
    "ending": ("t.xlsx", "x", r"unknown ending.*\.csv, \.tsv, \.json, \.jsonl"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "content", "message"), BAD.values(), ids=BAD)
def test_bad_file_is_named_with_its_row(
    tmp_path: Path, file: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=rf"/{file}.*{message}"):
        load_table(tickets(tmp_path, file, content), tmp_path)


def test_missing_folder_and_file_name_the_options(tmp_path: Path) -> None:
    task = tickets(tmp_path, "t.csv", CSV, folder="nowhere")
    with pytest.raises(UserError, match=r"no folder /.*/nowhere; set task\.folder=FOLDER"):
        load_table(task, tmp_path)
    task = tickets(tmp_path, "t.csv", CSV, files={"train": "u.csv"})
    with pytest.raises(UserError, match=r"u\.csv: no such file.*task\.files\.train=FILE"):
        load_table(task, tmp_path)


def test_json_lines_and_tsv_of_mnli_agree(shared_data: Path) -> None:
    """The same 9815 pairs through both readers: nothing lost, no text changed, same class ids."""
    tsv = task_config(
        "mnli",
        files={
            "train": None,
            "validation_matched": "dev_matched.rebuilt.tsv",
            "validation_mismatched": None,
        },
        eval_splits=["validation_matched"],
    )
    jsonl = task_config(
        "custom",
        folder=tsv.folder,
        files={"train": None, "validation": "dev_matched.jsonl"},
        text=["premise", "hypothesis"],
        labels=tsv.labels,
    )
    rows = load_table(jsonl, shared_data)["validation"]
    assert len(rows) == 9815
    assert rows[:] == load_glue(tsv, shared_data)["validation_matched"][:]


def test_held_out_rows_are_the_last_to_train_on_and_validate_instead(tmp_path: Path) -> None:
    task = tickets(tmp_path, "t.json", json.dumps(ROWS), holdout=1)
    splits = hold_out(load_table(task, Path("unused")), task)
    assert splits["train"]["text_a"][:] == EXPECTED["text_a"][:1]
    assert splits["validation"]["text_a"][:] == EXPECTED["text_a"][1:]


def test_nothing_is_left_when_all_rows_are_held_out(tmp_path: Path) -> None:
    task = tickets(tmp_path, "t.json", json.dumps(ROWS), holdout=2)
    with pytest.raises(UserError, match=r"task\.holdout=2: the training data has 2 rows"):
        hold_out(load_table(task, Path("unused")), task)


@pytest.mark.parametrize("form", LOADERS)
def test_the_loader_of_a_format_is_found_by_its_name(form: str) -> None:
    assert callable(resolve_name(LOADERS[form]))


def test_a_task_of_fewer_rows_trains_on_the_first_of_them_alone(tmp_path: Path) -> None:
    task = tickets(tmp_path, "t.json", json.dumps(ROWS), train_rows=1)
    splits = own_rows(load_table(task, Path("unused")), task)
    assert splits["train"]["text_a"][:] == EXPECTED["text_a"][:1]
    assert splits["validation"]["text_a"][:] == EXPECTED["text_a"]
