"""Work divided among the processes of one run, started with `accelerate launch` or `torchrun`."""

import atexit
from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

T = TypeVar("T")


@atexit.register
def leave() -> None:
    """Part from the other processes: left to the end of Python, gloo's threads may abort it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def own_share(items: Sequence[T]) -> Sequence[T]:
    """What this process does of `items`: all of it in a run of one process."""
    state = PartialState()
    return items[state.process_index :: state.num_processes]


def from_all(result: T) -> list[T]:
    """The results of all processes, in their order, in each of them; waits for the slowest."""
    return gather_object([result])


def is_main() -> bool:
    """Whether this process writes the files that a run has once."""
    return PartialState().is_main_process
