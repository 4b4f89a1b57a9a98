"""Names of runs, records on disk, and the search for a run to start from."""

import json
from pathlib import Path
from typing import Any

import pytest

from dylora.errors import UserError
from dylora.suite.cli import score_table
from dylora.suite.config import Config, Device, MethodConfig, RankDistribution
from dylora.suite.history import read_epochs, read_steps, write_history
from dylora.suite.record_schema import SCHEMA
from dylora.suite.records import (
    Record,
    provenance,
    read_record,
    signature,
    without_neutral,
    write_record,
)
from dylora.training.initial_adapter import find_adapter


def config(**changes: Any) -> Config:
    made = Config(seed=3)
    made.task.name, made.model.name, made.paths.cache = "mrpc", "minilm", "cache"
    made.method = MethodConfig(name="dylora", max_rank=4)
    for name, value in changes.items():
        *groups, key = name.split("__")
        place: Any = made
        for group in groups:
            place = getattr(place, group)
        setattr(place, key, value)
    return made


def test_the_signature_is_readable_and_stable() -> None:
    assert signature(config()).startswith("mrpc-minilm-dylora-r4-s3-")
    assert signature(config()) == signature(config())
    # Recorded once: a change here orphans every record that users have.
    assert signature(config()).endswith("-0bdc0dba20")


@pytest.mark.parametrize(
    "change",
    [
        {"paths__results": "elsewhere"},
        {"paths__data": "elsewhere"},
        {"tracker__name": "wandb"},
        {"device": Device.cpu},
        {"force": True},
        {"dry_run": True},
        {"train__eval_batch_size": 7},
        {"task__decode__token_budget": 99},
    ],
)
def test_where_and_how_a_run_works_is_not_in_its_signature(change: dict[str, Any]) -> None:
    assert signature(config(**change)) == signature(config())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"train__learning_rate": 1e-3},
        {"method__rank_distribution": RankDistribution.geometric},
        {"task__max_train_rows": 10},
        {"model__revision": "abc"},
        {"init_adapter": "mnli"},
    ],
)
def test_what_changes_the_result_changes_the_signature(change: dict[str, Any]) -> None:
    assert signature(config(**change)) != signature(config())


def test_the_recorded_configuration_has_no_paths_of_the_machine() -> None:
    kept = without_neutral(config())
    assert "paths" not in kept and "eval_batch_size" not in kept["train"]
    assert kept["method"]["max_rank"] == 4


def finished(seed: int, **changes: Any) -> Record:
    return {
        "schema": SCHEMA,
        "status": "done",
        "signature": f"mnli-minilm-{seed}",
        "task": "mnli",
        "model": "minilm",
        "method": "dylora",
        "seed": seed,
        "scores": {"1": {"f1": 0.5}},
        "config": {"method": {"max_rank": 4}},
        "parameters": {"total": 9},
        "times": {"train": 1.5, "evaluate": 1},
    } | changes


def test_a_record_is_written_whole_and_read_back(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    record = finished(seed=1)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_record_has_what_belongs_together_on_one_line_and_stays_short(tmp_path: Path) -> None:
    scores = {str(rank): {"accuracy": 0.7328431372549019, "f1": None} for rank in range(1, 9)}
    record = finished(seed=1, scores=scores, config=without_neutral(config()))
    lines = write_record(tmp_path, record).read_text().splitlines()
    assert '  "8": {"accuracy": 0.7328431372549019, "f1": null}' in lines
    assert len(lines) < 120 and max(map(len, lines)) <= 100
    assert list(json.loads("\n".join(lines))) == list(record)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_never_has_a_number_that_json_lacks(tmp_path: Path, value: float) -> None:
    write_record(tmp_path, finished(seed=1))
    before = (tmp_path / "record.json").read_text()
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path, finished(seed=1, times={"train": value, "evaluate": 1.0}))
    assert (tmp_path / "record.json").read_text() == before


@pytest.mark.parametrize("text", ['{"status": "do', "[]", "{}"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"record\.json.*delete it"):
        read_record(tmp_path)


STEPS = [
    {"step": 0, "loss": 0.69231, "rank": 3.0, "lr": 2.8985507246376814e-05},
    {"step": 7, "loss": 1e-05, "rank": 2.5, "lr": 0.0},
]


def test_a_history_comes_back_as_it_was_written(tmp_path: Path) -> None:
    scores = {"1": {"f1": 0.8122270742358079, "pearson": float("nan")}, "4": {"f1": 1 / 3}}
    epoch = {"epoch": 1, "step": 8, "scores": scores, "selected": float("nan")}
    seconds = {"train_seconds": 69.683, "evaluate_seconds": 7.1}
    write_history(tmp_path, STEPS, [epoch, {**epoch, **seconds, "epoch": 2, "selected": 0.5}])
    assert [step._asdict() for step in read_steps(tmp_path)] == STEPS
    rows = read_epochs(tmp_path)
    assert rows[:2] == [
        (1, 8, 1, "f1", 0.8122270742358079, None, None, None),
        (1, 8, 1, "pearson", None, None, None, None),
    ]
    assert rows[-1] == (2, 8, 4, "f1", 1 / 3, 0.5, 69.683, 7.1) and len(rows) == 6
    assert (tmp_path / "history.csv").read_bytes().startswith(b"step,loss,rank,lr\n0,0.69231,3.0,")


def test_a_run_without_a_history_yet_has_an_empty_one(tmp_path: Path) -> None:
    assert read_steps(tmp_path) == [] and read_epochs(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("step,loss\n", "its columns are not step,loss,rank,lr"),
        ("step,loss,rank,lr\n0,low,1,1\n", "could not convert string to float: 'low'"),
        ("step,loss,rank,lr\n0,1,1\n", "shorter"),
    ],
)
def test_a_damaged_history_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(UserError, match=rf"history\.csv: .*{said}.*run again with force=true"):
        read_steps(tmp_path)


def finished_run(results: Path, seed: int, **changes: Any) -> Path:
    record = finished(seed, **changes)
    folder = results / "records" / f"mnli-minilm-{seed}-{len(changes)}"
    write_record(folder, record)
    (folder / "adapter.safetensors").write_bytes(b"")
    return folder / "adapter.safetensors"


def test_a_start_is_found_by_task_and_prefers_the_same_seed(tmp_path: Path) -> None:
    wanted = config(init_adapter="mnli", paths__results=str(tmp_path))
    finished_run(tmp_path, 1, status="failed")
    finished_run(tmp_path, 2, config={"method": {"max_rank": 8}})
    with pytest.raises(UserError, match=r"dylora run task=mnli model=minilm method=dylora"):
        find_adapter(wanted)
    other = finished_run(tmp_path, 1)
    assert find_adapter(wanted) == other
    same = finished_run(tmp_path, 3)
    assert find_adapter(wanted) == same


def test_a_start_can_be_a_file_or_a_run_folder(tmp_path: Path) -> None:
    file = finished_run(tmp_path, 1)
    assert find_adapter(config(init_adapter=str(file))) == file
    assert find_adapter(config(init_adapter=str(file.parent))) == file


def test_provenance_names_commit_and_versions() -> None:
    facts = provenance(Path(__file__).parents[1])
    assert facts["packages"]["torch"]
    assert facts["git"] is None or len(facts["git"]["commit"]) == 40
    json.dumps(facts)


def test_provenance_outside_git_is_unknown(tmp_path: Path) -> None:
    assert provenance(tmp_path)["git"] is None


def test_the_table_has_a_row_for_each_rank() -> None:
    table = score_table({"scores": {"1": {"accuracy": 0.5}, "2": {"accuracy": 0.75}}})
    assert table.splitlines()[1:] == ["   1      0.5000", "   2      0.7500"]
