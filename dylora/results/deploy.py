"""What of a run to deploy: which ranks, on which backbone, at what cost. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from dylora.errors import UserError
from dylora.files import ADAPTER
from dylora.metrics import metric_named
from dylora.results.runs import Run, load_run
from dylora.results.stats import smallest_rank

FLOAT32 = 4  # bytes; adapters are kept in it


@dataclass(frozen=True)
class Choice:
    """The smallest rank that is good enough, and the scores it was chosen by."""

    rank: int
    metric: str
    scores: dict[int, float]  # as printed: fractions in percent
    tolerance: float


@dataclass(frozen=True)
class Backbone:
    """The base model that an exported folder names: a hub id, or a folder of this machine."""

    name: str
    on_hub: bool


def named_run(path: str | None) -> Run:
    """The run that a command line names: a run's folder or its record.json.

    Raises UserError if there is none, or as `load_run` does.
    """
    if path is None:
        raise UserError("name a run, such as results/records/NAME; --help says more")
    folder = Path(path)
    folder = folder.parent if folder.name == "record.json" else folder
    if not folder.is_dir():
        raise UserError(f"{path}: no such run; runs are in results/records/")
    return load_run(folder)


def adapter_file(run: Run) -> Path:
    """The run's adapter; UserError, with the command that makes it, if it is not there."""
    path = run.folder / ADAPTER
    if not path.is_file():
        command = run.record.get("command", "the same command")
        raise UserError(
            f"{path}: is not there (git keeps records without their adapters); make it with\n"
            f"  {command} force=true"
        )
    return path


def wanted_ranks(run: Run, rank: Any, tolerance: float, metric: str | None = None) -> list[int]:
    """The ranks that `rank` names: one, a list, "all", or "auto" for what `choose_rank` says.

    Raises UserError for a run without ranks, an unfinished one, or a rank that it does not have.
    """
    _check_has_ranks(run)
    if rank == "auto":
        return [choose_rank(run, tolerance, metric).rank]
    if rank == "all":
        return list(range(1, run.max_rank + 1))
    ranks = rank if isinstance(rank, list) else [rank]
    wrong = [b for b in ranks if type(b) is not int or not 1 <= b <= run.max_rank]
    if wrong or not ranks:
        raise UserError(
            f"rank={wrong[0] if wrong else '[]'}: the run has ranks 1 to {run.max_rank} "
            f"({run.folder})"
        )
    return sorted(set(ranks))


def backbone_of(run: Run, loaded_from: str, given: str | None) -> Backbone:
    """The base model to name: as `given`, else a hub id where the configuration has one.

    `loaded_from` is where its backbone is found; that folder is named if there is no hub id, as for
    a toy model or a folder given by `model.name_or_path`. Raises UserError if `given` is neither a
    folder nor a hub id.
    """
    if given is not None:
        on_hub = not Path(given).is_dir()
        if on_hub and not is_repository(given):
            raise UserError(f"base_model={given}: no such folder, and no hub id such as OWNER/NAME")
        return Backbone(given, on_hub)
    name = run.option("model.name_or_path")
    local = run.option("model.toy") or Path(name).is_dir() or not is_repository(name)
    if not local and ("/" in name or name == loaded_from):
        return Backbone(name, True)
    return Backbone(str(Path(loaded_from).resolve()), False)


def is_repository(name: str) -> bool:
    """Whether this may be a hub id: `OWNER/NAME`, or one of the old ones without an owner."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _check_has_ranks(run: Run) -> None:
    if not run.done:
        command = run.record.get("command", "the same command")
        raise UserError(
            f"{run.folder}: the run is {run.record['status']}; finish it first:\n  {command}"
        )
    if not run.max_rank:
        raise UserError(f"{run.folder}: method={run.method} has no ranks to choose from")


def choose_rank(run: Run, tolerance: float, metric: str | None = None) -> Choice:
    """The smallest rank whose score is within `tolerance` points of the best rank's.

    By default the task's own metric, for generation the first that was computed. Raises UserError
    for an unfinished run, one without ranks, or a metric that it does not have.
    """
    _check_has_ranks(run)
    if tolerance < 0:
        raise UserError(f"tolerance={tolerance}: must be 0 or more, in points such as 0.5")
    known = [name for name in next(iter(run.scores.values())) if _curve(run, name)]
    default = run.option("task.select_metric")
    name = metric or (default if default in known else next(iter(known), default))
    if name not in known:
        raise UserError(f"metric={name}: the run has {', '.join(known) or 'no metrics'}")
    curve, lower = _curve(run, name), metric_named(name).lower_is_better
    return Choice(smallest_rank(curve, tolerance, lower), name, curve, tolerance)


def choose_over_seeds(
    runs: Sequence[Run], tolerance: float, metric: str | None = None
) -> tuple[Choice, list[int]]:
    """As `choose_rank`, by the mean over runs of several seeds; and each run's own choice.

    Raises UserError as `choose_rank`, and where the runs differ in more.
    """
    first = choose_rank(runs[0], tolerance, metric)
    alone = [choose_rank(run, tolerance, first.metric) for run in runs]
    for run in runs[1:]:
        if run.settings_key != runs[0].settings_key:
            raise UserError(f"{run.folder}: differs from the first run in more than its seed")
    ranks = sorted(set.intersection(*(set(choice.scores) for choice in alone)))
    curve = {rank: fmean(choice.scores[rank] for choice in alone) for rank in ranks}
    rank = smallest_rank(curve, tolerance, metric_named(first.metric).lower_is_better)
    return Choice(rank, first.metric, curve, tolerance), [choice.rank for choice in alone]


def _curve(run: Run, metric: str) -> dict[int, float]:
    values = {rank: scores.get(metric) for rank, scores in sorted(run.scores.items())}
    printed = metric_named(metric).printed
    return {rank: printed(value) for rank, value in values.items() if value is not None}


def adapter_size(run: Run, rank: int) -> int:
    """Trained parameters to deploy at a rank: that part of the low-rank matrices, and the head.

    Raises UserError if the record does not tell.
    """
    counts = run.record["parameters"]
    if not all(isinstance(counts.get(part), int) for part in ("low_rank", "trained")):
        raise UserError(f"{run.folder}: the record has no parameter counts; run again")
    return counts["low_rank"] * rank // run.max_rank + counts["trained"] - counts["low_rank"]
