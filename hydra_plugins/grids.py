"""Hydra's sweeper for `-m` and `experiments=`: a union of grids, in which a failure stops no other.

Hydra's own sweeper knows one Cartesian product and gives up at the first failure. It must live in
this package: Hydra takes plugins from nowhere else.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from dylora.cli import explain
from dylora.sweep import jobs


@dataclass
class GridSweeperConf:
    """`smoke` holds the grids that `scale=smoke` runs instead of `grids`."""

    _target_: str = "hydra_plugins.grids.GridSweeper"
    grids: list[Any] = field(default_factory=list)
    smoke: list[Any] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grids", node=GridSweeperConf)


class GridSweeper(BasicSweeper):
    """Runs every job; lists the failures at the end and then exits with 1."""

    def __init__(self, grids: list[Any], smoke: list[Any]) -> None:
        super().__init__(max_batch_size=None)
        self.grids, self.smoke = grids, smoke

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
        size = self.config.hydra.launcher.get("n_jobs", 1) if self.config.fail_fast else len(batch)
        done: list[JobReturn] = []
        for start in range(0, len(batch), size):
            done += self.launcher.launch(batch[start : start + size], initial_job_idx=start)
            if self.config.fail_fast and any(_failed(job) for job in done):
                break
        _report(done, len(batch))
        return done


def _value_text(override: Any) -> str:
    return override.get_value_element_as_str()


def _failed(job: JobReturn) -> bool:
    return job.status == JobStatus.FAILED


def _report(done: list[JobReturn], planned: int) -> None:
    """Print what failed and why, and leave with 1 if anything did."""
    failed = [job for job in done if _failed(job)]
    print(f"{len(done) - len(failed)} of {planned} runs done, {len(failed)} failed")
    for job in failed:
        try:
            _ = job.return_value
        except Exception as error:  # whatever the run raised
            reason = explain(error).strip() or type(error).__name__
            print(f"failed: {' '.join(job.overrides or [])}\n  {reason}", file=sys.stderr)
    if failed:
        sys.exit(1)
