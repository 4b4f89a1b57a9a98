"""Work divided among the processes of one run, started with `accelerate launch` or `torchrun`."""

from collections.abc import Sequence
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

T = TypeVar("T")


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
