"""A run's options as `dylora run task=... model=...` has them, from the files of conf/."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dylora.results.layout import CONF
from dylora.suite.config import Config, Protocol


def compose_settings(
    task: str, model: str, protocol: Protocol, more: Mapping[str, str] | None = None
) -> DictConfig:
    """A task, a model and their recipe; `more` has a `method` (else dylora) and single options.

    What Hydra composes (a test holds the two equal), without what takes it a tenth of a second:
    there are dozens of pairs.
    """
    single = dict(more or {})
    merged = OmegaConf.merge(
        _pair(task, model, protocol),
        _read("method", single.pop("method", "dylora")),
        _read("protocol", protocol),
        OmegaConf.from_dotlist([f"{name}={value}" for name, value in single.items()]),
    )
    assert isinstance(merged, DictConfig)
    return merged


@cache
def _pair(task: str, model: str, protocol: Protocol) -> Any:
    return OmegaConf.merge(
        OmegaConf.structured(Config),
        {"model": {"name": model}},
        {"model": _read("model", model), "task": _read("task", task)},
        {"train": _read("train", "default")},
        _read("recipe", f"{protocol}/{model}_{task}"),
    )


@cache
def _read(group: str, choice: str) -> DictConfig:
    """A choice of a group, over those that it starts from; nothing if conf/ has no such choice.

    Most pairs have no recipe, and a record's model may be gone.
    """
    path = CONF / group / f"{choice}.yaml"
    content = OmegaConf.load(path) if path.exists() else OmegaConf.create()
    assert isinstance(content, DictConfig)
    parents = [name for name in content.pop("defaults", []) if name != "_self_"]
    read = [_read(group, name) for name in parents if isinstance(name, str)]
    merged = OmegaConf.merge(*read, content)
    assert isinstance(merged, DictConfig)
    return merged
