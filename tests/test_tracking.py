"""What trackers write, read back from their files, and that none of them can hurt a run."""

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter
from test_experiment import ROOT, compose_config, config, record_of, write_table
from tiny import save_roberta
from wandb.proto import wandb_internal_pb2

from dylora import experiment, tracking, validation
from dylora.config import Config, TrackerConfig, TrackerMode, TrackerName
from dylora.errors import UserError
from dylora.records import Record, signature

WANDB = ("tracker=wandb", "tracker.group=trials")
TENSORBOARD = ("tracker=tensorboard",)
Curves = dict[str, list[tuple[int, float]]]  # name -> (step, value)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "data").mkdir()
    write_table(folder / "data" / "train.csv", 60, seed=1)
    write_table(folder / "data" / "validation.csv", 30, seed=2)
    save_roberta(folder / "model", ["cat dog sun moon red blue"] * 3)
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A machine on which nobody has used wandb."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        patch.setenv("NETRC", str(folder / "netrc"))
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / name.lower()))
        yield


@pytest.fixture(scope="module")
def untracked(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return experiment.run(config(home, tmp_path_factory.mktemp("untracked")))


def expected_curves(record: Record) -> Curves:
    """The curves that belong to a record, worked out from its history alone."""
    curves: Curves = {}
    for point in record["history"]["steps"]:
        for name in ("loss", "rank", "lr"):
            curves.setdefault(f"train/{name}", []).append((point["step"], point[name]))
    for number, epoch in enumerate(record["history"]["epochs"], start=1):
        for rank in ("1", "2", "3"):
            value = epoch["scores"][rank]["accuracy"]
            curves.setdefault(f"validation/accuracy/r{rank}", []).append((6 * number, value))
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
    wandb_run: tuple[Config, Record, WandbRun], untracked: Record
) -> None:
    _, record, found = wandb_run
    assert found.curves == expected_curves(record)
    assert record["history"]["steps"] == untracked["history"]["steps"]  # it changes nothing
    assert record["scores"] == untracked["scores"]


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
    record = experiment.run(made)
    whole = read_wandb(wandb_files(tmp_path)[-1])
    assert whole.run.run_id == partial.run.run_id == signature(made)
    assert whole.curves == expected_curves(record)
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
    assert compose_config("tracker=wandb", "experiments=time").tracker.group == "time"


# --- TensorBoard


def read_tensorboard(results: Path) -> EventAccumulator:
    (folder,) = results.glob("tracking/tensorboard/*")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    return events.Reload()


def scalars(events: EventAccumulator) -> Curves:
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def test_tensorboard_has_the_curves_of_every_rank_and_the_configuration(
    home: Path, tmp_path: Path, untracked: Record
) -> None:
    record = experiment.run(config(home, tmp_path, *TENSORBOARD))
    events = read_tensorboard(tmp_path)
    final = {f"final/accuracy/r{b}": [(0, s["accuracy"])] for b, s in record["scores"].items()}
    assert scalars(events) == approximately(expected_curves(record) | final)
    (text,) = events.Tensors("config/text_summary")[0].tensor_proto.string_val
    assert json.loads(text.decode().strip("`\n").removeprefix("json")) == record["config"]
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    hparams = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert hparams["method.max_rank"].number_value == 3
    assert hparams["method.name"].string_value == "dylora"
    assert record["scores"] == untracked["scores"]  # it changes nothing


def test_a_resumed_run_has_each_point_once_in_tensorboard(home: Path, tmp_path: Path) -> None:
    made = config(home, tmp_path, *TENSORBOARD)
    interrupt_after(9, made)
    assert len(read_tensorboard(tmp_path).Scalars("train/loss")) == 9
    record = experiment.run(made)
    curves = scalars(read_tensorboard(tmp_path))
    expected = approximately(expected_curves(record))
    assert {name: curves[name] for name in expected} == expected


# --- What may go wrong


class Tracker:
    """Fails where it is told to, and notes what it is given."""

    def __init__(self, fails_in: str = "", error: type[BaseException] = RuntimeError) -> None:
        self.fails_in, self.error, self.logged, self.statuses = fails_in, error, [], []

    def __call__(self, config: Config, record: Record) -> "Tracker":
        self._maybe_fail("start")
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append(step)
        self._maybe_fail("log")

    def finish(self, record: Record) -> None:
        self.statuses.append(record["status"])
        self._maybe_fail("finish")

    def _maybe_fail(self, place: str) -> None:
        if place in self.fails_in:
            raise self.error(f"broken in {place}")


def use(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> Tracker:
    monkeypatch.setitem(tracking._TRACKERS, TrackerName.tensorboard, tracker)
    return tracker


@pytest.mark.parametrize("place", ["start", "log", "finish", "log and finish"])
def test_a_tracker_that_fails_is_reported_once_and_costs_nothing(
    home: Path,
    tmp_path: Path,
    untracked: Record,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    tracker = use(monkeypatch, Tracker(place))
    record = experiment.run(config(home, tmp_path, *TENSORBOARD))
    assert record["status"] == "done" and record == record_of(tmp_path)
    assert record["scores"] == untracked["scores"]
    assert record["history"]["steps"] == untracked["history"]["steps"]
    errors = capsys.readouterr().err
    assert errors.count("broken in") == 1
    assert f"RuntimeError: broken in {place.split()[0]}" in errors and "goes on" in errors
    assert len(tracker.logged) == {"start": 0, "finish": 14}.get(place, 1)
    assert tracker.statuses == ([] if place == "start" else ["done"])


def test_ctrl_c_in_a_tracker_ends_the_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = use(monkeypatch, Tracker("log", KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt, match="broken in log"):
        experiment.run(config(home, tmp_path, *TENSORBOARD))
    assert record_of(tmp_path)["status"] == "interrupted"
    assert tracker.statuses == ["interrupted"]


def test_a_failed_run_closes_its_tracker(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = use(monkeypatch, Tracker())
    bad = ("train.learning_rate=1e30", "train.max_grad_norm=0")
    with pytest.raises(UserError, match="loss is"):
        experiment.run(config(home, tmp_path, *TENSORBOARD, *bad))
    assert tracker.statuses == ["failed"]


def test_only_the_main_process_tracks(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = use(monkeypatch, Tracker())
    monkeypatch.setattr(tracking, "is_main", lambda: False)
    experiment.run(config(home, tmp_path, *TENSORBOARD))
    assert not tracker.logged and not tracker.statuses


@pytest.mark.parametrize("options", [WANDB, TENSORBOARD])
def test_a_folder_that_cannot_be_made_does_not_stop_the_run(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    (tmp_path / "tracking").write_text("in the way")
    assert experiment.run(config(home, tmp_path, *options))["status"] == "done"
    assert capsys.readouterr().err.count("is off, the run goes on (") == 1


@pytest.mark.filterwarnings(
    # tensorboard's writing thread ends with the error that the run's thread is then given
    "ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning"
)
def test_a_full_disk_under_tensorboard_does_not_stop_the_run(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, calls = RecordWriter.write, []

    def write(self: RecordWriter, data: bytes) -> None:
        calls.append(1)
        if len(calls) > 9:
            raise OSError(28, "No space left on device")
        real(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)
    assert experiment.run(config(home, tmp_path, *TENSORBOARD))["status"] == "done"
    assert capsys.readouterr().err.count("is off, the run goes on (OSError") == 1


# --- What is refused before anything is done


def faults(**options: Any) -> list[str]:
    return validation._tracker_faults(TrackerConfig(**options))


@pytest.mark.parametrize("name", [TrackerName.wandb, TrackerName.tensorboard])
def test_a_missing_package_is_named_before_training(
    monkeypatch: pytest.MonkeyPatch, name: TrackerName
) -> None:
    assert faults(name=name) == []

    def absent(package: str) -> str:
        raise validation.PackageNotFoundError(package)

    monkeypatch.setattr(validation, "version", absent)
    (fault,) = faults(name=name)
    assert f"tracker={name}" in fault and "pip install 'dylora[trackers]'" in fault
    assert faults() == []


def test_online_without_a_login_is_refused_and_nobody_is_asked() -> None:
    (fault,) = faults(name=TrackerName.wandb, mode=TrackerMode.online)
    assert "tracker.mode=online" in fault and "wandb login" in fault
    assert faults(name=TrackerName.wandb, mode=TrackerMode.offline) == []


@pytest.mark.parametrize("name", [TrackerName.none, TrackerName.tensorboard])
def test_options_of_wandb_need_wandb(name: TrackerName) -> None:
    (fault,) = faults(name=name, mode=TrackerMode.online)
    assert f"tracker.mode needs tracker=wandb, this is tracker={name}" in fault


@pytest.mark.slow
def test_a_tracker_that_is_not_chosen_is_not_imported() -> None:
    program = (
        "import sys, dylora.experiment, dylora.validation\n"
        "print([m for m in ('wandb', 'tensorboard', 'tensorboardX') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_tracker_is_no_part_of_a_runs_name(home: Path, tmp_path: Path) -> None:
    assert signature(config(home, tmp_path, *WANDB)) == signature(config(home, tmp_path))
