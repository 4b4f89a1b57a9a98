"""What trackers write, read back from their files."""

import json
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from small_run import compose_config, config, epochs_of, make_home, record_of, steps_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from wandb.proto import wandb_internal_pb2

from dylora.suite.config import Config
from dylora.suite.records import Record, signature
from dylora.training import experiment

WANDB = ("tracker=wandb", "tracker.group=trials")
TENSORBOARD = ("tracker=tensorboard",)
pytestmark = pytest.mark.usefixtures("no_login")
Curves = dict[str, list[tuple[int, float]]]  # name -> (step, value)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def untracked(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("untracked")
    experiment.run(config(home, results))
    return results


def expected_curves(results: Path) -> Curves:
    """The curves that belong to a run, worked out from its history alone."""
    curves: Curves = {}
    for point in steps_of(results):
        for name in ("loss", "rank", "lr"):
            curves.setdefault(f"train/{name}", []).append((point.step, getattr(point, name)))
    for row in epochs_of(results):
        assert row.step == 6 * row.epoch and row.rank in (1, 2, 3)
        name = f"validation/{row.metric}/r{row.rank}"
        curves.setdefault(name, []).append((row.step, row.value))
    return curves


def approximately(curves: Curves) -> dict[str, Any]:
    return {
        name: [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
        for name, points in curves.items()
    }


def interrupt_after(losses: int, made: Config) -> None:
    """Run `made` until it is asked to stop in the middle of an epoch."""
    real_loss, calls = experiment.classification.loss, []

    def stopping(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == losses:
            signal.raise_signal(signal.SIGINT)
        return real_loss(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment.classification, "loss", stopping)
        experiment.run(made)


# --- Weights & Biases


@dataclass
class WandbRun:
    """What an offline run's file says."""

    curves: Curves = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    run: Any = None
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, which is a LevelDB log after a header of 7 bytes.

    The format: https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    data, block, at, whole = path.read_bytes(), 32768, 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if block - at % block < 7:  # the rest of a block is padding
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):
            return  # still being written
        if kind in (1, 4):  # a whole record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def read_wandb(path: Path) -> WandbRun:
    found, deadline = WandbRun(), time.monotonic() + 60
    # wandb's process writes the end of the file a moment after `finish` has returned.
    while not any(r.HasField("exit") for r in wandb_records(path)):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            items = record.run.config.update
            found.config = {item.key: json.loads(item.value_json) for item in items}
        elif kind == "history":
            step = record.history.step.num
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    value = json.loads(item.value_json)
                    found.curves.setdefault(name, []).append((step, value))
        elif kind == "summary":
            for item in record.summary.update:
                name = item.key or "/".join(item.nested_key)
                found.summary[name] = json.loads(item.value_json)
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def wandb_files(results: Path) -> list[Path]:
    return sorted(results.glob("tracking/wandb/offline-run-*/*.wandb"))


@pytest.fixture(scope="module")
def wandb_run(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, Record, WandbRun]:
    results = tmp_path_factory.mktemp("wandb_results")
    made = config(home, results, *WANDB, "tracker.artifacts=true")
    record = experiment.run(made)
    (file,) = wandb_files(results)
    return made, record, read_wandb(file)


def test_wandb_has_the_curves_of_every_rank(
    wandb_run: tuple[Config, Record, WandbRun], untracked: Path
) -> None:
    made, record, found = wandb_run
    results = Path(made.paths.results)
    assert found.curves == expected_curves(results)
    assert steps_of(results) == steps_of(untracked)  # it changes nothing
    assert record["scores"] == record_of(untracked)["scores"]


def test_wandb_has_names_group_configuration_and_summary(
    wandb_run: tuple[Config, Record, WandbRun],
) -> None:
    made, record, found = wandb_run
    assert (found.run.run_id, found.run.display_name) == (signature(made), signature(made))
    assert (found.run.run_group, found.run.project) == ("trials", "dylora")
    assert found.config["method"] == record["config"]["method"]
    assert found.config["seed"] == 1 and "tracker" not in found.config
    final = {f"final/accuracy/r{b}": s["accuracy"] for b, s in record["scores"].items()}
    assert final.items() <= found.summary.items()
    assert found.summary["best_epoch"] == record["best_epoch"]
    assert (found.summary["status"], found.exit_code) == ("done", 0)


def test_wandb_keeps_adapter_record_and_predictions_if_asked(
    wandb_run: tuple[Config, Record, WandbRun],
) -> None:
    made, _, found = wandb_run
    (artifact,) = found.artifacts
    names = {entry.path for entry in artifact.manifest.contents}
    predictions = {f"outputs/validation.rank{b}.txt" for b in (1, 2, 3)}
    assert names == {
        "adapter.safetensors",
        "record.json",
        "history.csv",
        "epochs.csv",
        "outputs/validation.labels.txt",
        *predictions,
    }
    assert artifact.name == signature(made)


def test_a_resumed_wandb_run_is_whole_under_the_same_id(home: Path, tmp_path: Path) -> None:
    made = config(home, tmp_path, *WANDB)
    interrupt_after(9, made)
    partial = read_wandb(wandb_files(tmp_path)[0])
    assert (partial.summary["status"], partial.exit_code) == ("interrupted", 1)
    assert [step for step, _ in partial.curves["train/loss"]] == list(range(9))
    time.sleep(1)  # an attempt's folder is named by the second
    experiment.run(made)
    whole = read_wandb(wandb_files(tmp_path)[-1])
    assert whole.run.run_id == partial.run.run_id == signature(made)
    assert whole.curves == expected_curves(tmp_path)
    assert not whole.artifacts


def test_wandb_is_online_only_with_a_login_and_resumes_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> SimpleNamespace:
        asked.append(options)
        return SimpleNamespace(
            url="https://example.org/run",
            step=3,
            summary={},
            log=lambda values, step: logged.append(step),
            finish=lambda exit_code: None,
        )

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "login", lambda prompt, verify: not (prompt or verify))
    for resumed in (None, "allow"):
        logged: list[int] = []
        made = config(home, tmp_path, "tracker.name=wandb")
        interrupt_after(5, made)
        assert (asked[-1]["mode"], asked[-1]["resume"]) == ("online", resumed)
        assert asked[-1]["group"] == "words-tiny"  # without an experiment
        assert min(logged) == 3  # what the server has is not sent again
    experiment.run(config(home, tmp_path, "tracker.name=wandb", "tracker.mode=offline"))
    assert (asked[-1]["mode"], asked[-1]["resume"]) == ("offline", None)


def test_the_group_is_the_experiment() -> None:
    assert compose_config("tracker=wandb", "experiments=table1").tracker.group == "table1"


# --- TensorBoard


def read_tensorboard(results: Path) -> EventAccumulator:
    (folder,) = results.glob("tracking/tensorboard/*")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    return events.Reload()


def scalars(events: EventAccumulator) -> Curves:
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def test_tensorboard_has_the_curves_of_every_rank_and_the_configuration(
    home: Path, tmp_path: Path, untracked: Path
) -> None:
    record = experiment.run(config(home, tmp_path, *TENSORBOARD))
    events = read_tensorboard(tmp_path)
    final = {f"final/accuracy/r{b}": [(0, s["accuracy"])] for b, s in record["scores"].items()}
    assert scalars(events) == approximately(expected_curves(tmp_path) | final)
    (text,) = events.Tensors("config/text_summary")[0].tensor_proto.string_val
    assert json.loads(text.decode().strip("`\n").removeprefix("json")) == record["config"]
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    hparams = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert hparams["method.max_rank"].number_value == 3
    assert hparams["method.name"].string_value == "dylora"
    assert record["scores"] == record_of(untracked)["scores"]  # it changes nothing


def test_a_resumed_run_has_each_point_once_in_tensorboard(home: Path, tmp_path: Path) -> None:
    made = config(home, tmp_path, *TENSORBOARD)
    interrupt_after(9, made)
    assert len(read_tensorboard(tmp_path).Scalars("train/loss")) == 9
    experiment.run(made)
    curves = scalars(read_tensorboard(tmp_path))
    expected = approximately(expected_curves(tmp_path))
    assert {name: curves[name] for name in expected} == expected
