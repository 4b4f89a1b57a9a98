"""How far experiments are: `python scripts/status.py [experiment=NAME] [model=NAME] [scale=smoke]`.

Prints done, running, failed, interrupted and missing runs of each grid, why runs failed, and the
hours that the rest should take, from the times of the runs that are done.
"""

import statistics
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from tqdm import tqdm

from dylora.cli import options, plain_errors
from dylora.config import Config
from dylora.errors import UserError
from dylora.records import Record, read_record, run_folder
from dylora.sweep import Job, jobs

ROOT = Path(__file__).parents[1]


@dataclass
class Options:
    """What to look at."""

    experiment: str | None = None  # one of experiments/; null: all
    model: str | None = None  # as on the sweep's command line
    scale: str = "full"
    results: str = "results"


def main() -> None:
    with plain_errors():
        chosen = options(Options, __doc__)
        ConfigStore.instance().store(name="schema", node=Config)
        names = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
        if chosen.experiment is not None:
            if chosen.experiment not in names:
                raise UserError(
                    f"experiment={chosen.experiment}: must be one of {', '.join(names)}"
                )
            names = [chosen.experiment]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            for name in names:
                _print_status(name, planned_jobs(name, chosen), chosen)


def planned_jobs(name: str, chosen: Options) -> list[Job]:
    """The runs of an experiment's grid, as options of run.py."""
    experiment = OmegaConf.load(ROOT / "experiments" / f"{name}.yaml")
    which = "smoke" if chosen.scale == "smoke" else "grids"
    grids = OmegaConf.select(experiment, f"hydra.sweeper.{which}")
    if grids is None:
        return []
    given = {"experiments": [name], "scale": [chosen.scale]}
    if chosen.model is not None:
        given["model"] = [chosen.model]
    return jobs(OmegaConf.to_container(grids), given)  # type: ignore[arg-type]


def _print_status(name: str, planned: list[Job], chosen: Options) -> None:
    records = {job: _record(job, chosen) for job in tqdm(planned, name, leave=False, disable=None)}
    counts = Counter("missing" if r is None else r["status"] for r in records.values())
    listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    print(f"{name}: {listed or 'no runs of its own'}{_hours_left(records)}")
    for job, record in records.items():
        if record is not None and record["status"] == "failed":
            print(f"  failed: {' '.join(job)}\n    {record['error'].strip().splitlines()[-1]}")


def _record(job: Job, chosen: Options) -> Record | None:
    seeds = [option.removeprefix("seed=") for option in job if option.startswith("seed=")]
    config = _config(tuple(option for option in job if not option.startswith("seed=")))
    config.paths.results = chosen.results
    if seeds:
        config.seed = int(seeds[0])
    return read_record(run_folder(config))


@cache
def _config(job: Job) -> Config:
    """Composing is slow, and runs that differ in their seed alone are composed alike."""
    config = OmegaConf.to_object(compose("config", list(job)))
    assert isinstance(config, Config)
    return config


def _hours_left(records: dict[Job, Record | None]) -> str:
    """An estimate from the median run of the same task, else of all; empty without any done run."""
    seconds: dict[str, list[float]] = {}
    for job, record in records.items():
        if record is not None and record["status"] == "done":
            seconds.setdefault(_task(job), []).append(sum(record["times"].values()))
    left = [job for job, r in records.items() if r is None or r["status"] != "done"]
    if not left or not seconds:
        return ""
    every = [value for values in seconds.values() for value in values]
    hours = sum(statistics.median(seconds.get(_task(job), every)) for job in left) / 3600
    return f"; about {hours:.1f} hours left, one after another"


def _task(job: Job) -> str:
    return next((option for option in job if option.startswith("task=")), "")


if __name__ == "__main__":
    main()
