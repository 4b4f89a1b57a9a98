"""A task's YAML as the typed value that loaders take, without composing a whole run."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dylora.suite.config import TaskConfig

TASKS = Path(__file__).parents[1] / "conf" / "task"


def task_config(name: str, **changes: Any) -> TaskConfig:
    """`conf/task/NAME.yaml` with some fields changed."""
    yaml = OmegaConf.load(TASKS / f"{name}.yaml")
    assert isinstance(yaml, DictConfig)
    yaml.pop("defaults", None)
    task = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TaskConfig), yaml, changes))
    assert isinstance(task, TaskConfig)
    return task
