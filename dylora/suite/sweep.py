"""Grids of runs: which command lines an experiment stands for. No torch here."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

Grid = Mapping[str, Any]  # option -> value or list of values
Job = tuple[str, ...]  # the options of one run, as key=value


def jobs(grids: Sequence[Grid], options: Mapping[str, Sequence[str]]) -> list[Job]:
    """The runs of several Cartesian products, each once, in order.

    `options` come from the command line, option -> values. An option that a grid has too narrows
    the grid to the values named, and replaces them where no grid has any of those; so `method=lora`
    leaves the LoRA runs of an experiment, and `model=minilm` or `seed=9` are used everywhere.
    """
    listed = [{key: _values(value) for key, value in grid.items()} for grid in grids] or [{}]
    for key, wanted in options.items():
        having = [g for g in listed if not set(g.get(key, wanted)).isdisjoint(wanted)]
        if any(key in grid for grid in having):
            listed = having
    found: dict[Job, None] = {}
    for grid in listed:
        chosen = {**grid, **{key: _narrow(grid.get(key), v) for key, v in options.items()}}
        for values in product(*chosen.values()):
            found[tuple(f"{k}={v}" for k, v in zip(chosen, values, strict=True))] = None
    return list(found)


def _narrow(values: list[str] | None, wanted: Sequence[str]) -> Sequence[str]:
    return [v for v in values if v in wanted] or wanted if values else wanted


def _values(value: Any) -> list[str]:
    """A grid's values as Hydra would be given them on a command line."""
    many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [str(v).lower() if isinstance(v, bool) else str(v) for v in many]
