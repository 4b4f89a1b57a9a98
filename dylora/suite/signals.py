"""Signals that ask a process to stop: seen between steps, handed on when all is written."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training stopped at a step boundary because the process was asked to; it can be resumed.

    `signals` are those that asked; `stop_requests` sets them.
    """

    signals: tuple[int, ...] = ()


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
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises Interrupted at once, instead of ending the process.

    Put it around scoring, of which no step must be finished: what is done is on disk. It leaves a
    launcher's own handler in place.
    """
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # the record is written now
        raise Interrupted("stopped; run again to go on")

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
