"""Unfinished training on disk: saved whole or not at all, resumed to the bit."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from dylora.adapter import adapter_state, load_adapter_state
from dylora.workers import from_all, is_main, own_share


class Interrupted(KeyboardInterrupt):
    """Training stopped at a step boundary because the process was asked to; it can be resumed.

    `signals` are those that asked; `stop_requests` sets them.
    """

    signals: tuple[int, ...] = ()


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: Any, scheduler: Any, progress: dict[str, Any]
) -> None:
    """Write all that the next step depends on: trained tensors, optimizer, schedule, generators.

    All processes of a run call it, each has generators of its own; the main one writes.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    generators = from_all({"cpu": torch.get_rng_state(), "cuda": cuda})
    if not is_main():
        return
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "trained": adapter_state(model),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "generators": generators,
        "progress": progress,
    }
    unfinished = folder / "state.pt.tmp"
    torch.save(state, unfinished)
    unfinished.replace(folder / "state.pt")


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: Any, scheduler: Any
) -> dict[str, Any] | None:
    """Put a saved state back in place and return its progress; None if there is none."""
    path = folder / "state.pt"
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    load_adapter_state(model, state["trained"], str(path))
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    own = own_share(state["generators"])
    if own:  # none for this process if the run was started with fewer
        torch.set_rng_state(own[0]["cpu"])
        if own[0]["cuda"]:
            torch.cuda.set_rng_state_all(own[0]["cuda"])
    return state["progress"]


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Within the block SIGINT and SIGTERM are noted in the list instead of ending the process.

    Training looks at it between steps, so that a checkpoint never holds half a step. So are SIGUSR1
    and SIGUSR2 where they have a handler, such as that of a launcher which waits for a warning of
    the end of the job; see `hand_on_signals`. A second Ctrl-C ends the process at once.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    own = [n for n in (signal.SIGUSR1, signal.SIGUSR2) if callable(signal.getsignal(n))]
    former = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM, *own)}
    try:
        yield received
    except Interrupted as stopped:
        stopped.signals = tuple(received)
        raise
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def hand_on_signals() -> Iterator[None]:
    """Give the signals that stopped training to the handlers that `stop_requests` stood in for.

    Put it around all that is to be written first: submitit's handler returns the job to SLURM's
    queue and ends the process.
    """
    try:
        yield
    except Interrupted as stopped:
        for number in stopped.signals:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)
        raise
