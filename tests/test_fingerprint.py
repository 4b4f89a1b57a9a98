"""A score is never shown for other data than it was computed from."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from small_run import config, make_home, record_of

from dylora.errors import UserError
from dylora.suite.config import Config
from dylora.suite.signals import Interrupted
from dylora.tasks import fingerprint, toy
from dylora.training import experiment


@pytest.fixture
def made(tmp_path: Path) -> Config:
    home = make_home(tmp_path)
    return config(home, tmp_path / "results", f"paths.cache={tmp_path / 'cache'}")


def edit(made: Config, old: str, new: str) -> None:
    path = Path(made.task.folder) / "train.csv"
    path.write_text(path.read_text().replace(old, new, 1))


def test_a_finished_run_of_relabelled_data_is_not_done_already(made: Config) -> None:
    experiment.run(made)
    experiment.run(made)
    edit(made, ",bad", ",good")
    with pytest.raises(UserError, match=r"train has other content in its 60 rows.*force=true"):
        experiment.run(made)
    edit(made, ",good", ",good\nsun,good")
    with pytest.raises(UserError, match="train had 60 rows, now 61"):
        experiment.run(made)
    made.force = True
    assert experiment.run(made)["data"]["train"]["rows"] == 61


def test_files_that_have_not_changed_are_not_read_again(
    made: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = experiment.run(made)
    experiment.run(made)
    monkeypatch.setattr(fingerprint, "load", None)
    assert experiment.run(made) == json.loads(json.dumps(first))


def test_a_damaged_cache_of_fingerprints_is_made_anew(made: Config, tmp_path: Path) -> None:
    first = fingerprint.local_fingerprint(made.task, made.paths)
    (kept,) = (tmp_path / "cache" / "fingerprints").iterdir()
    kept.write_text('{"train": {"ro')
    assert fingerprint.local_fingerprint(made.task, made.paths) == first


def test_a_record_without_fingerprint_and_one_without_its_data_stay_done(made: Config) -> None:
    experiment.run(made)
    Path(made.task.folder).rename(Path(made.task.folder).with_name("away"))
    assert experiment.run(made)["status"] == "done"
    Path(made.task.folder).with_name("away").rename(made.task.folder)
    (path,) = Path(made.paths.results).glob("records/*/record.json")
    record = json.loads(path.read_text())
    del record["data"]
    path.write_text(json.dumps(record))
    (Path(made.task.folder) / "train.csv").write_bytes(b"\xff\xfe no table")
    assert experiment.run(made)["status"] == "done"


def test_data_that_changes_while_a_run_is_interrupted_does_not_go_into_it(
    made: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_loss = experiment.classification.loss

    def stop(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real_loss(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(experiment.classification, "loss", stop)
        experiment.run(made)
    edit(made, ",bad", ",good")
    with pytest.raises(UserError, match=r"train has other content.*delete .*checkpoint"):
        experiment.run(made)
    assert record_of(Path(made.paths.results))["status"] == "interrupted"


def test_a_damaged_file_of_a_toy_task_is_named_and_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = toy.write("toy_pair", tmp_path)
    whole = (folder / "dev.tsv").read_bytes()
    (folder / "dev.tsv").write_bytes(whole.replace(b"\tnot_entailment", b"\tentailment", 1))
    toy.write("toy_pair", tmp_path)
    assert (folder / "dev.tsv").read_bytes() == whole
    assert "dev.tsv is damaged: toy_pair-" in capsys.readouterr().out
