"""GLUE files and the hub give the same columns and ids; bad data gives one clear error."""

import collections
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from task_yaml import TASKS, task_config

from dylora.errors import UserError
from dylora.suite.config import Kind, PathsConfig, TaskConfig
from dylora.tasks import glue, load
from dylora.tasks.base import limit_rows
from dylora.tasks.glue import load_glue
from dylora.tasks.table import read_tsv

GLUE = ["cola", "sst2", "mrpc", "stsb", "rte", "wnli", "qnli", "qqp", "mnli"]
PARTIAL = {"train": "train.part.tsv"}

# task, task.files changes -> rows per split (the published counts, or those of a stated part)
ROWS = [
    ("cola", {}, {"train": 8551, "validation": 1043}),
    ("sst2", {}, {"train": 67349, "validation": 872}),
    ("mrpc", {}, {"train": 3668, "validation": 408}),
    ("stsb", {}, {"train": 5749, "validation": 1500}),
    ("rte", {}, {"train": 2490, "validation": 277}),
    ("wnli", {}, {"train": 635, "validation": 71}),
    ("qnli", PARTIAL, {"train": 8999, "validation": 5463}),
    ("qnli", {"train": "train.kshot.tsv", "heldout": "heldout_from_train.part.tsv"},
     {"train": 320, "validation": 5463, "heldout": 1000}),
    ("qqp", PARTIAL | {"validation": "heldout_from_train.part.tsv"},
     {"train": 8999, "validation": 1000}),
    ("qqp", {"train": "train.kshot.tsv", "validation": "heldout_from_train.part.tsv"},
     {"train": 320, "validation": 1000}),
    ("mnli", PARTIAL | {"validation_matched": "dev_matched.rebuilt.tsv",
                        "validation_mismatched": "heldout_from_train.part.tsv"},
     {"train": 8999, "validation_matched": 9815, "validation_mismatched": 1000}),
    ("mnli", {"train": "train.kshot.tsv", "validation_matched": "dev_matched.rebuilt.tsv",
              "validation_mismatched": "heldout_from_train.part.tsv"},
     {"train": 480, "validation_matched": 9815, "validation_mismatched": 1000}),
    ("mrpc", {"all": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"},
     {"train": 3668, "validation": 408, "all": 4076, "test": 1725}),
]  # fmt: skip

UNLABELLED_TEST_ROWS = [
    ("cola", 1063), ("sst2", 1821), ("mrpc", 1725), ("stsb", 1379), ("rte", 3000), ("wnli", 146),
    ("qnli", 5463),
]  # fmt: skip

# task -> (files changes, split, how often each class id occurs)
LABELS = [
    ("cola", {}, "validation", [322, 721]),
    ("sst2", {}, "validation", [428, 444]),
    ("mrpc", {}, "validation", [129, 279]),
    ("rte", {}, "validation", [146, 131]),
    ("wnli", {}, "validation", [40, 31]),
    ("qnli", PARTIAL, "validation", [2702, 2761]),
    ("mnli", PARTIAL | {"validation_matched": "dev_matched.rebuilt.tsv",
                        "validation_mismatched": "heldout_from_train.part.tsv"},
     "validation_matched", [3479, 3123, 3213]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "rows"), ROWS)
def test_row_counts(
    shared_data: Path, name: str, files: dict[str, str], rows: dict[str, int]
) -> None:
    splits = load_glue(task_config(name, files=files), shared_data)
    assert {split: len(data) for split, data in splits.items()} == rows


@pytest.mark.parametrize(("name", "rows"), UNLABELLED_TEST_ROWS)
def test_row_counts_of_test_files(shared_data: Path, name: str, rows: int) -> None:
    task = task_config(name, columns=None, label="index")  # any column: there are no labels
    assert len(read_tsv(task, shared_data / task.folder / "test.tsv").places) == rows


def test_row_count_of_the_diagnostic_set(shared_data: Path) -> None:
    task = task_config("mnli", label="index")
    assert len(read_tsv(task, shared_data / "glue/AX/diagnostic.tsv").places) == 1104


@pytest.mark.parametrize(("name", "files", "split", "counts"), LABELS)
def test_label_counts(
    shared_data: Path, name: str, files: dict[str, str], split: str, counts: list[int]
) -> None:
    """Wrong if two classes change places or a column is mistaken for another."""
    found = collections.Counter(
        load_glue(task_config(name, files=files), shared_data)[split]["label"]
    )
    assert [found[number] for number in range(len(counts))] == counts


def test_scores_of_stsb(shared_data: Path) -> None:
    splits = load_glue(task_config("stsb"), shared_data)
    assert splits["train"].features["label"] == Value("float32")
    for split, mean in (("train", 2.701), ("validation", 2.364)):
        scores = splits[split]["label"][:]
        assert sum(scores) / len(scores) == pytest.approx(mean, abs=5e-4)
        assert min(scores) == 0
        assert max(scores) == 5


def test_texts_are_kept_as_written(shared_data: Path) -> None:
    """SST-2's trailing space and the quotes that csv would eat are part of the official data."""
    sst2 = load_glue(task_config("sst2"), shared_data)["train"]
    assert sst2[0] == {"text_a": "hide new secretions from the parental units ", "label": 0}
    mrpc = load_glue(task_config("mrpc"), shared_data)["train"]
    assert mrpc[0]["text_a"].endswith('whom he called " the witness " , of deliberately'
                                      " distorting his evidence .")  # fmt: skip
    assert mrpc.column_names == ["text_a", "text_b", "label"]


@pytest.mark.parametrize("name", GLUE)
def test_yaml_of_every_task_is_complete(name: str) -> None:
    task = task_config(name)
    assert (task.name, task.format, task.hub) == (name, "glue", "nyu-mll/glue")
    assert task.hub_config == name
    assert task.max_length == 512
    assert task.select_metric in task.metrics
    assert set(task.eval_splits) <= set(task.files)
    assert bool(task.labels) == (task.kind == Kind.classification)
    assert "override /model@_global_.model: roberta_base" in (TASKS / f"{name}.yaml").read_text()


def test_class_ids_are_those_of_the_hub() -> None:
    """Order of nyu-mll/glue's class names; with another, local and hub runs would differ."""
    assert task_config("rte").labels == ["entailment", "not_entailment"]
    assert task_config("qnli").labels == ["entailment", "not_entailment"]
    assert task_config("mnli").labels == ["entailment", "neutral", "contradiction"]
    for name in ("cola", "sst2", "mrpc", "wnli", "qqp"):
        assert task_config(name).labels == ["0", "1"]


# ---------------------------------------------------------------------------------------------
# Small made-up files


def write_pair_task(folder: Path, **files: str | bytes) -> TaskConfig:
    """A two-class pair task in `folder`/pairs with the given files; the others are valid."""
    valid = "index\tleft\tright\tlabel\n0\ta\tb\tyes\n1\tc\td\tno\n"
    (folder / "pairs").mkdir()
    for name, content in ({"train": valid, "dev": valid} | files).items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / "pairs" / f"{name}.tsv").write_bytes(raw)
    return TaskConfig(
        name="pairs",
        kind=Kind.classification,
        format="glue",
        folder="pairs",
        files={"train": "train.tsv", "validation": "dev.tsv"},
        text=["left", "right"],
        labels=["no", "yes"],
    )


def test_ids_follow_the_order_of_the_labels(tmp_path: Path) -> None:
    splits = load_glue(write_pair_task(tmp_path), tmp_path)
    assert splits["train"][:] == {"text_a": ["a", "c"], "text_b": ["b", "d"], "label": [1, 0]}


@pytest.mark.parametrize(
    "content",
    [
        "left\tright\tlabel\r\na\tb\tyes\r\nc\td\tno\r\n",
        "\ufeffleft\tright\tlabel\na\tb\tyes\nc\td\tno",
        "left\tright\tlabel\na\tb\tyes\n\nc\td\tno\n\n\n",
        "label\tnote\tright\tleft\nyes\t\tb\ta\nno\tx\td\tc\n",
    ],
    ids=["CRLF", "BOM, no final newline", "blank lines", "more columns in another order"],
)
def test_variants_of_the_format_give_the_same_rows(tmp_path: Path, content: str) -> None:
    splits = load_glue(write_pair_task(tmp_path, train=content), tmp_path)
    assert splits["train"][:] == {"text_a": ["a", "c"], "text_b": ["b", "d"], "label": [1, 0]}


def test_unusual_characters_do_not_end_a_line(tmp_path: Path) -> None:
    """str.splitlines would break at each of these; quotes and commas are plain text."""
    odd = 'a\x0b\x0c\x1c\x85\u2028"b, "'
    content = f"left\tright\tlabel\n{odd}\t\tyes\n"
    splits = load_glue(write_pair_task(tmp_path, train=content), tmp_path)
    assert splits["train"][:] == {"text_a": [odd], "text_b": [""], "label": [1]}


def test_file_without_header(tmp_path: Path) -> None:
    task = write_pair_task(tmp_path, train="yes\ta\tb\nno\tc\td\n", dev="no\te\tf\n")
    task.columns = ["label", "left", "right"]
    splits = load_glue(task, tmp_path)
    assert splits["train"]["text_b"][:] == ["b", "d"]
    assert splits["validation"]["label"][:] == [0]


def test_short_rows_are_dropped_only_when_the_task_says_so(tmp_path: Path) -> None:
    """QQP's original file has questions broken over two lines; both pieces have to go."""
    broken = "index\tleft\tright\tlabel\n0\ta\tb\tyes\n1\tbroken\n\tquestion\tno\n2\tc\td\tno\n"
    task = write_pair_task(tmp_path, train=broken)
    with pytest.raises(UserError, match=r"train\.tsv, line 3: 2 columns instead of 4 \(index"):
        load_glue(task, tmp_path)
    task.drop_short_rows = True
    assert load_glue(task, tmp_path)["train"]["text_a"][:] == ["a", "c"]
    assert task_config("qqp").drop_short_rows


HEADER = "index\tleft\tright\tlabel\n"
BAD = {
    "too many columns": (HEADER + "0\ta\tb\tyes\tx\n", r"line 2: 5 columns instead of 4"),
    "missing column": ("index\tleft\tlabel\n", r"no column 'right'; there are: index.*task\.text="),
    "missing label": ("left\tright\n", r"no column 'label'; there are: left.*task\.label="),
    "unknown label": (HEADER + "0\ta\tb\tyes\n\n1\ta\tb\tm\n", r"line 4: unknown label 'm'"),
    "empty file": ("", "the file is empty"),
    "blank file": ("\n\n", "the file is empty"),
    "header only": (HEADER, "no rows"),
    "not UTF-8": (HEADER.encode() + b"0\ta\tb\tyes\n1\t\xe9\tb\tno\n", r"line 3: not UTF-8.*0xe9"),
    "not UTF-8 at once": (b"\xef\xbb\xbf\n\xe9", r"line 2: not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_bad_file_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    task = write_pair_task(tmp_path, dev=content)
    with pytest.raises(UserError, match=r"pairs/dev\.tsv.*" + message):
        load_glue(task, tmp_path)


@pytest.mark.parametrize("value", ["high", "", "nan", "inf"])
def test_score_that_is_no_number(tmp_path: Path, value: str) -> None:
    task = write_pair_task(tmp_path, train=f"left\tright\tlabel\na\tb\t2.5\na\tb\t{value}\n")
    task.kind = Kind.regression
    with pytest.raises(
        UserError, match=rf"train\.tsv, line 3: column 'label' is not a number: '{value}"
    ):
        load_glue(task, tmp_path)


def test_missing_file_names_the_options(tmp_path: Path) -> None:
    task = write_pair_task(tmp_path)
    (tmp_path / "pairs" / "dev.tsv").unlink()
    with pytest.raises(
        UserError,
        match=r"dev\.tsv: no such file; the folder has: train\.tsv\. .*files\.valid.*=null",
    ):
        load_glue(task, tmp_path)
    (tmp_path / "pairs" / "train.tsv").unlink()
    with pytest.raises(UserError, match=r"train\.tsv.*has: nothing.*task\.files\.train=FILE$"):
        load_glue(task, tmp_path)


def test_split_set_to_null_is_left_out(tmp_path: Path) -> None:
    task = write_pair_task(tmp_path)
    task.files["train"] = None
    assert list(load_glue(task, tmp_path)) == ["validation"]
    task.files["validation"] = None
    with pytest.raises(UserError, match="no files"):
        load_glue(task, tmp_path)


def test_scored_split_without_a_file_names_both_options(tmp_path: Path) -> None:
    task = write_pair_task(tmp_path)
    task.eval_splits = ["validation", "other"]
    with pytest.raises(UserError, match=r"other.*files\.other=FILE or task\.eval_splits=\[valid"):
        load_glue(task, tmp_path)


def test_first_rows_only(tmp_path: Path) -> None:
    """`max_train_rows` is for the split `train`, `max_eval_rows` for every other."""
    task = write_pair_task(tmp_path)
    task.max_train_rows, task.max_eval_rows = 1, 100
    splits = load(task, PathsConfig(data=str(tmp_path)))
    assert splits["train"]["text_a"][:] == ["a"]
    assert len(splits["validation"]) == 2
    task.max_train_rows, task.max_eval_rows = None, 1
    whole = load_glue(task, tmp_path)
    whole["validation_matched"] = whole["validation"]
    rows = {split: len(data) for split, data in limit_rows(whole, task).items()}
    assert rows == {"train": 2, "validation": 1, "validation_matched": 1}


# ---------------------------------------------------------------------------------------------
# The hub, its answers replaced here; tests/test_hub.py goes over HTTP


def hub_dataset(names: list[str], labels: list[int]) -> Dataset:
    columns = {"question": ["q"] * len(labels), "sentence": ["s"] * len(labels), "label": labels}
    features = {
        "question": Value("string"),
        "sentence": Value("string"),
        "label": ClassLabel(names=names),
    }
    return Dataset.from_dict(
        columns | {"idx": range(len(labels))}, Features(features | {"idx": Value("int32")})
    )


def serve_dataset(monkeypatch: pytest.MonkeyPatch, data: Dataset) -> None:
    monkeypatch.setattr(glue, "why_unreachable", lambda hub, kind: None)
    splits = DatasetDict(train=data, validation=data)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda hub, config, split: [splits[name] for name in split]
    )


def test_hub_rows_look_like_local_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_dataset(monkeypatch, hub_dataset(["entailment", "not_entailment"], [1, 0]))
    splits = load_glue(task_config("qnli"), tmp_path)
    assert splits["train"][0] == {"text_a": "q", "text_b": "s", "label": 1}
    assert splits["validation"]["label"][:] == [1, 0]
    assert splits["validation"].features["label"] == Value("int64")


def test_local_folder_wins_over_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(glue, "_load_hub", refuse)
    task = write_pair_task(tmp_path)
    task.hub = "somebody/pairs"
    assert len(load_glue(task, tmp_path)["train"]) == 2


def test_other_class_order_on_the_hub_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve_dataset(monkeypatch, hub_dataset(["not_entailment", "entailment"], [1, 0]))
    with pytest.raises(UserError, match=r"task\.labels=\[not_entailment,entailment\]"):
        load_glue(task_config("qnli"), tmp_path)


def test_hub_split_without_labels_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve_dataset(monkeypatch, hub_dataset(["entailment", "not_entailment"], [1, -1]))
    with pytest.raises(UserError, match=r"glue/qnli, split train, row 2: unknown label '-1'"):
        load_glue(task_config("qnli"), tmp_path)


def test_hub_dataset_with_other_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve_dataset(monkeypatch, hub_dataset(["0", "1"], [1, 0]))
    with pytest.raises(UserError, match=r"no column 'sentence1'.*question.*task\.hub_text=\["):
        load_glue(task_config("mrpc"), tmp_path)


def test_no_folder_and_no_hub(tmp_path: Path) -> None:
    task = write_pair_task(tmp_path)
    task.folder = "elsewhere"
    with pytest.raises(UserError, match=r"no folder .*/elsewhere.*paths\.data=FOLDER"):
        load_glue(task, tmp_path)
