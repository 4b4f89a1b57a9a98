"""Run one experiment, or a sweep with -m: `dylora run task=mrpc method=dylora`.

`dylora run --help` lists the choices of every group and all options.
"""

import os
import shlex
from contextlib import nullcontext

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dylora.suite.cli import plain_errors
from dylora.suite.config import Config
from dylora.suite.validation import validate
from dylora.tasks.ready import check_files, finished

ConfigStore.instance().store(name="schema", node=Config)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> Config | None:
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN  # the sweeper reports the mistakes then
    with nullcontext() if sweeping else plain_errors():
        config = OmegaConf.to_object(composed)
        assert isinstance(config, Config)
        validate(config)
        if config.dry_run and sweeping:
            return config  # the sweeper shows them all
        if config.dry_run:
            from dylora.results.plan import show_plan

            show_plan([config])
            return None
        if finished(config) is not None:
            return None
        check_files(config)
        from dylora.training.experiment import run  # imports torch, for which nothing above waits

        run(config, shlex.join(["dylora", "run", *HydraConfig.get().overrides.task]))
    return None


if __name__ == "__main__":
    if "HYDRA_FULL_ERROR" in os.environ:
        main()
    # Without this Hydra catches its errors and prints them in its own words.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with plain_errors(HydraException):
        main()
