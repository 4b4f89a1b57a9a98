"""No tracker can hurt a run, and one that cannot work is refused before it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_run import ROOT, config, make_home, record_of, steps_of
from tensorboard.summary.writer.record_writer import RecordWriter

from dylora.errors import UserError
from dylora.suite import validation
from dylora.suite.config import Config, TrackerConfig, TrackerMode, TrackerName
from dylora.suite.records import Record, signature
from dylora.training import experiment, tracking

WANDB = ("tracker=wandb",)
TENSORBOARD = ("tracker=tensorboard",)
pytestmark = pytest.mark.usefixtures("no_login")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def untracked(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("untracked")
    experiment.run(config(home, results))
    return results


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
    untracked: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    tracker = use(monkeypatch, Tracker(place))
    record = experiment.run(config(home, tmp_path, *TENSORBOARD))
    assert record["status"] == "done" and record == record_of(tmp_path)
    assert record["scores"] == record_of(untracked)["scores"]
    assert steps_of(tmp_path) == steps_of(untracked)
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
        "import sys, dylora.training.experiment, dylora.suite.validation\n"
        "print([m for m in ('wandb', 'tensorboard', 'tensorboardX') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_tracker_is_no_part_of_a_runs_name(home: Path, tmp_path: Path) -> None:
    assert signature(config(home, tmp_path, *WANDB)) == signature(config(home, tmp_path))
