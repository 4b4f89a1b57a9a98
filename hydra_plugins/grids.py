"""Hydra's sweeper for `-m` and `experiments=`: a union of grids, in which a failure stops no other.

Hydra's own sweeper knows one Cartesian product and gives up at the first failure. It must live in
this package: Hydra takes plugins from nowhere else.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dylora.errors import UserError
from dylora.suite.cli import explain
from dylora.suite.config import Config
from dylora.suite.sweep import jobs

if TYPE_CHECKING:
    from dylora.results.progress import SweepProgress


@dataclass
class GridSweeperConf:
    """`smoke` holds the grids that `scale=smoke` runs instead of `grids`."""

    _target_: str = "hydra_plugins.grids.GridSweeper"
    grids: list[Any] = field(default_factory=list)
    smoke: list[Any] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grids", node=GridSweeperConf)


class MissingLauncher(Launcher):
    """Stands in for a launcher that is not installed, to say how to get it."""

    def __init__(self, package: str, **settings: Any) -> None:
        self.package = package

    def setup(self, **parts: Any) -> None:
        """Nothing to prepare."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        raise UserError(
            f"this launcher needs the package {self.package}; type\n  pip install {self.package}"
        )


for _name, _kind in {"joblib": "joblib", "submitit_slurm": "submitit", "ray": "ray"}.items():
    if find_spec(f"hydra_plugins.hydra_{_kind}_launcher") is None:
        _target = "hydra_plugins.grids.MissingLauncher"
        _node = {"_target_": _target, "package": f"hydra-{_kind}-launcher"}
        # Not a struct: it takes the options of the launcher that it stands in for.
        _open = OmegaConf.create(_node, flags={"struct": False})
        ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_open)


class GridSweeper(BasicSweeper):
    """Runs every job; lists the failures at the end and then exits with 1."""

    def __init__(self, grids: list[Any], smoke: list[Any]) -> None:
        super().__init__(max_batch_size=None)
        self.grids, self.smoke = grids, smoke

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        parts: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function}
        super().setup(**parts, config=config)
        if config.dry_run:  # here and now, wherever the runs would go
            self.launcher = BasicLauncher()
            self.launcher.setup(**parts, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None and self.hydra_context is not None and self.launcher
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        options = {}
        for override in parser.parse_overrides(arguments):
            swept = override.is_sweep_override() and override.is_discrete_sweep()
            values = override.sweep_string_iterator() if swept else [_value_text(override)]
            options[override.get_key_element()] = list(values)
        smoke = self.config.hydra.runtime.choices.get("scale") == "smoke"
        grids = OmegaConf.to_container(OmegaConf.create(self.smoke if smoke else self.grids))
        batch = [list(job) for job in jobs(grids, options)]  # type: ignore[arg-type]
        done = self._launched(batch)
        if self.config.dry_run:
            _show_plan(done)
        else:
            _report(done, len(batch))
        return done

    def _launched(self, batch: list[list[str]]) -> list[JobReturn]:
        """All runs by this launcher: here one by one, so that each can be announced."""
        assert self.config is not None and self.launcher
        one_by_one = isinstance(self.launcher, BasicLauncher)
        workers = 1 if one_by_one else _at_a_time(self.config.hydra.launcher)
        size = workers if one_by_one or self.config.fail_fast else len(batch)
        announce = None if self.config.dry_run else self._progress(batch)
        done: list[JobReturn] = []
        for start in range(0, len(batch), size):
            these = batch[start : start + size]
            if announce is not None:
                print(announce.line(start, len(these), workers), flush=True)
            try:
                done += self.launcher.launch(these, initial_job_idx=start)
            except RuntimeError as error:  # not a run's: those are in what `launch` returns
                raise UserError(
                    f"the launcher gave up: {error}\n"
                    "once no run of this sweep is left, the same command does what is missing"
                ) from error
            if self.config.fail_fast and any(_failed(job) for job in done):
                break
        return done

    def _progress(self, batch: list[list[str]]) -> "SweepProgress":
        """Composes what differs in more than the seed once, as each takes a tenth of a second."""
        from dylora.results.progress import SweepProgress

        composed: dict[tuple[str, ...], Config | None] = {}
        configs: list[Config | None] = []
        for job in batch:
            seeds = [word for word in job if re.fullmatch(r"seed=\d+", word)]
            settings = tuple(word for word in job if word not in seeds)
            if settings not in composed:
                composed[settings] = self._composed(job)
            config = composed[settings]
            if config and seeds:
                config = replace(config, seed=int(seeds[-1].removeprefix("seed=")))
            configs.append(config)
        return SweepProgress(configs)

    def _composed(self, job: list[str]) -> Config | None:
        """A run's options; None if they are wrong, which the run itself will say."""
        assert self.config is not None and self.hydra_context is not None
        try:
            found = self.hydra_context.config_loader.load_sweep_config(self.config, job)
            with open_dict(found):
                del found["hydra"]
            made = OmegaConf.to_object(found)
        except (HydraException, OmegaConfBaseException):
            return None
        assert isinstance(made, Config)
        return made


def _value_text(override: Any) -> str:
    return override.get_value_element_as_str()


def _at_a_time(launcher: Any) -> int:
    """How many runs a launcher has going at once, from its configuration."""
    from joblib import effective_n_jobs  # which --help need not wait for

    return effective_n_jobs(launcher.get("n_jobs") or launcher.get("array_parallelism") or 1)


def _failed(job: JobReturn) -> bool:
    return job.status == JobStatus.FAILED


def _report(done: list[JobReturn], planned: int) -> None:
    """Print what failed and why, and leave with 1 if anything did."""
    failed = sum(_failed(job) for job in done)
    print(f"{len(done) - failed} of {planned} runs done, {failed} failed")
    _list_failures(done)
    if failed:
        sys.exit(1)


def _show_plan(done: list[JobReturn]) -> None:
    """Print what the runs of a dry run would be; leave with 1 if not all could be."""
    from dylora.results.plan import show_plan

    _list_failures(done)
    configs = [job.return_value for job in done if not _failed(job)]
    if configs:
        show_plan(configs)
    if len(configs) < len(done):
        sys.exit(1)


def _list_failures(done: list[JobReturn]) -> None:
    for job in filter(_failed, done):
        try:
            _ = job.return_value
        except Exception as error:  # whatever the run raised
            reason = explain(error).strip() or type(error).__name__
            print(f"failed: {' '.join(job.overrides or [])}\n  {reason}", file=sys.stderr)
