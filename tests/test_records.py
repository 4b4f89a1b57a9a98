"""Names of runs, records on disk, and the search for a run to start from."""

import json
from pathlib import Path
from typing import Any

import pytest

from dylora.errors import UserError
from dylora.suite.cli import score_table
from dylora.suite.config import Config, Device, MethodConfig, RankDistribution
from dylora.suite.records import provenance, read_record, signature, without_neutral, write_record
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


def test_a_record_is_written_whole_and_read_back(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(tmp_path, {"status": "done", "scores": {"1": {"f1": 0.5}}})
    assert read_record(tmp_path) == {"status": "done", "scores": {"1": {"f1": 0.5}}}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("text", ['{"status": "do', "[]", "{}"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"record\.json.*delete it"):
        read_record(tmp_path)


def finished_run(results: Path, seed: int, **changes: Any) -> Path:
    record = {
        "status": "done",
        "task": "mnli",
        "model": "minilm",
        "method": "dylora",
        "seed": seed,
        "config": {"method": {"max_rank": 4}},
    } | changes
    folder = results / "records" / f"mnli-minilm-{seed}-{len(changes)}"
    write_record(folder, record)
    (folder / "adapter.safetensors").write_bytes(b"")
    return folder / "adapter.safetensors"


def test_a_start_is_found_by_task_and_prefers_the_same_seed(tmp_path: Path) -> None:
    wanted = config(init_adapter="mnli", paths__results=str(tmp_path))
    finished_run(tmp_path, 1, status="failed")
    finished_run(tmp_path, 2, config={"method": {"max_rank": 8}})
    with pytest.raises(UserError, match=r"python run\.py task=mnli model=minilm method=dylora"):
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
