"""Curves of a run in Weights & Biases or TensorBoard, for those who ask; the record has it all too.

Nothing here may cost a run: a tracker that fails is reported once and left alone from then on.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from tqdm.auto import tqdm

from dylora.files import ADAPTER
from dylora.suite.config import Config, TrackerMode, TrackerName
from dylora.suite.history import EPOCHS, STEPS
from dylora.suite.records import Record, run_folder
from dylora.training.loop import Progress
from dylora.training.workers import is_main

FINISH_SECONDS = 60  # how long the end of a run waits for wandb's uploads

Values = dict[str, float]
Track = Callable[[Progress], None]


class Tracker(Protocol):
    """What the trackers have in common; any method may raise."""

    def log(self, values: Values, step: int) -> None:
        """Add a point to the curve of each name; steps never go down."""

    def finish(self, record: Record) -> None:
        """Add what the run came to, and close."""


@contextmanager
def tracking(config: Config, record: Record) -> Iterator[Track]:
    """Within the block, what the yielded function is given goes to the tracker that `config` names.

    The function takes the run's progress whenever its history has grown. At the end `record` must
    say what became of the run, and be on disk, for the tracker to be closed with it.
    """
    if config.tracker.name == TrackerName.none or not is_main():
        yield lambda progress: None
        return
    guarded = _Guarded(config, record)
    try:
        yield guarded.track
    finally:
        guarded.finish(record)


class _Guarded:
    """The tracker of a run; its first failure is printed and ends the tracking, not the run."""

    def __init__(self, config: Config, record: Record) -> None:
        self._name = config.tracker.name.value
        self._tracker: Tracker | None = None
        self._failed = False
        self._sent = {"steps": 0, "epochs": 0}
        with self._contained():
            self._tracker = _TRACKERS[config.tracker.name](config, record)

    def track(self, progress: Progress) -> None:
        """Send what is new in the history: in a resumed run first all that came before."""
        if self._tracker is None or self._failed:
            return
        with self._contained():
            for step, values in self._new_points(progress):
                self._tracker.log(values, int(step))

    def finish(self, record: Record) -> None:
        """Close, after a failure too, so that what was sent until then is kept if it can be."""
        if self._tracker is not None:
            with self._contained():
                self._tracker.finish(record)

    @contextmanager
    def _contained(self) -> Iterator[None]:
        try:
            yield
        # Whatever a tracker raises (no network, a full disk, a bug of its own) must not end hours
        # of training that the record keeps anyway. Ctrl-C is no Exception and passes.
        except Exception as error:
            if not self._failed:
                reason = f"{type(error).__name__}: {error}"
                tqdm.write(f"warning: {self._name} is off, the run goes on ({reason})", sys.stderr)
            self._failed = True

    def _new_points(self, progress: Progress) -> list[tuple[float, Values]]:
        points: list[tuple[float, Values]] = [
            (p["step"], {f"train/{name}": p[name] for name in ("loss", "rank", "lr")})
            for p in progress.steps[self._sent["steps"] :]
        ]
        points += [
            (epoch["step"], _flat("validation", epoch["scores"]))
            for epoch in progress.epochs[self._sent["epochs"] :]
        ]
        self._sent = {"steps": len(progress.steps), "epochs": len(progress.epochs)}
        return sorted(points, key=itemgetter(0))


def _flat(prefix: str, scores: dict[str, dict[str, float | None]]) -> Values:
    """Scores by rank as `prefix/accuracy/r1`; without the rank for a method that has none."""
    return {
        f"{prefix}/{metric}" + (f"/r{rank}" if rank != "0" else ""): value
        for rank, by_metric in scores.items()
        for metric, value in by_metric.items()
        if value is not None
    }


class _Wandb:
    """A run in Weights & Biases, named by the signature; a resumed run goes on under the same id.

    Offline each attempt has a folder of its own, which holds the curves from the first step.
    """

    def __init__(self, config: Config, record: Record) -> None:
        import wandb  # here and below: whoever does not ask for a tracker does not wait for it

        self._folder, self._artifacts = run_folder(config), config.tracker.artifacts
        # Without a login nobody is asked for one. (wandb looks at the environment and at netrc.)
        offline = config.tracker.mode == TrackerMode.offline
        online = not offline and wandb.login(prompt=False, verify=False)
        resumed = online and (self._folder / "checkpoint").exists()
        self._run = wandb.init(
            project=config.tracker.project,
            group=config.tracker.group or f"{record['task']}-{record['model']}",
            id=record["signature"],
            name=record["signature"],
            config=record["config"],
            mode="online" if online else "offline",
            resume="allow" if resumed else None,
            reinit="create_new",  # a sweep's earlier run may have failed to close
            dir=_made(config, ""),
            settings=wandb.Settings(silent=True, console="off", finish_timeout=FINISH_SECONDS),
        )
        print(f"wandb: {self._run.url if online else f'offline in {Path(self._run.dir).parent}'}")

    def log(self, values: Values, step: int) -> None:
        if step >= self._run.step:  # the server has the earlier ones of a resumed run
            self._run.log(values, step=step)

    def finish(self, record: Record) -> None:
        import wandb

        done = record["status"] == "done"
        try:
            scores = _flat("final", record["scores"])
            named = {"best_epoch": record.get("best_epoch"), "status": record["status"]}
            self._run.summary.update({**scores, **named})
            if done and self._artifacts:
                artifact = wandb.Artifact(record["signature"], type="run")
                for file in (ADAPTER, "record.json", STEPS, EPOCHS):
                    artifact.add_file(str(self._folder / file))
                artifact.add_dir(str(self._folder / "outputs"), name="outputs")
                self._run.log_artifact(artifact)
        finally:
            self._run.finish(exit_code=0 if done else 1)


class _TensorBoard:
    """Event files in a folder named by the signature; an earlier attempt's points are purged."""

    def __init__(self, config: Config, record: Record) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = _made(config, f"tensorboard/{record['signature']}")
        self._writer = SummaryWriter(folder, purge_step=0)
        text = json.dumps(record["config"], indent=1)
        self._writer.add_text("config", f"```json\n{text}\n```", 0)
        print(f"tensorboard --logdir {Path(folder).parent}")

    def log(self, values: Values, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, record: Record) -> None:
        try:
            if record["status"] == "done":
                scores = _flat("final", record["scores"])
                # run_name: in this run's folder, not in one named by the time.
                self._writer.add_hparams(_hparams(record), scores, run_name=".")
        finally:
            self._writer.close()


def _hparams(record: Record) -> dict[str, bool | float | str]:
    """What tells runs apart, as TensorBoard takes it: flat, and text for whatever is no number."""
    options = {name: record[name] for name in ("task", "model", "seed")}
    for group in ("method", "train"):
        options |= {f"{group}.{name}": value for name, value in record["config"][group].items()}
    return {k: v if isinstance(v, bool | int | float) else str(v) for k, v in options.items()}


def _made(config: Config, name: str) -> str:
    """The folder of this name among what trackers write, made if it is not there."""
    folder = Path(config.paths.results) / "tracking" / name
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


_TRACKERS: dict[TrackerName, Callable[[Config, Record], Tracker]] = {
    TrackerName.wandb: _Wandb,
    TrackerName.tensorboard: _TensorBoard,
}
