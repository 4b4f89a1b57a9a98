"""Where a sweep is, and how long the rest of it takes. No torch here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dylora.errors import UserError
from dylora.results.cost import Estimator, duration, option_of
from dylora.results.runs import Run, load_records, load_run
from dylora.suite.config import Config
from dylora.suite.records import run_folder


class SweepProgress:
    """Of these runs in turn; None is one whose options are wrong. What is done takes no time."""

    def __init__(self, configs: Sequence[Config | None]) -> None:
        self._configs = configs
        results = {config.paths.results for config in configs if config is not None}
        runs = [run for folder in results for run in load_records(Path(folder) / "records")[0]]
        self._done = {run.folder: run for run in runs if run.done}
        self._settings = {_settings(c): option_of(c) for c in configs if c is not None}

    def line(self, before: int, together: int = 1, at_a_time: int = 1) -> str:
        """Before the run that comes after `before` others, or before `together` runs at once."""
        total, first = len(self._configs), self._configs[before]
        place = f"run {before + 1} of {total}"
        if together > 1:
            place = f"runs {before + 1} to {before + together} of {total}"
        elif first is not None:
            place += f" ({first.task.name}, {first.method.name}, seed {first.seed})"
        return f"{place}{self._left(before, at_a_time)}"

    def _left(self, before: int, at_a_time: int) -> str:
        self._look()
        estimator = Estimator(self._done.values())
        estimates = {key: estimator(option) for key, option in self._settings.items()}
        left = [c for c in self._configs[before:] if c is not None and not self._is_done(c)]
        if not left:
            return ""
        known = [found.seconds for c in left if (found := estimates[_settings(c)]) is not None]
        if not known:
            return ", time left unknown, as no run like them is done"
        workers = min(at_a_time, len(left))
        text = f", about {duration(sum(known) / workers)} left"
        text += f" with {workers} at a time" if workers > 1 else ""
        unknown = len(left) - len(known)
        return f"{text}, and unknown for {unknown} of {len(left)} runs" if unknown else text

    def _look(self) -> None:
        """Add what was done since, here or by others."""
        for config in self._configs:
            if config is not None and run_folder(config) not in self._done:
                run = _run_of(config)
                if run is not None and run.done:
                    self._done[run.folder] = run

    def _is_done(self, config: Config) -> bool:
        return not config.force and run_folder(config) in self._done


def _settings(config: Config) -> str:
    """Equal for runs that differ in the seed alone, and so take as long."""
    return repr(replace(config, seed=0))


def _run_of(config: Config) -> Run | None:
    try:
        return load_run(run_folder(config))
    except UserError:  # it is not there, or cannot be used: the run itself says so
        return None
