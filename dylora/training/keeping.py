"""What is kept of a run while it goes on: its lock, its record, its peak of memory."""

import resource
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from dylora.errors import UserError
from dylora.suite.history import write_history
from dylora.suite.lock import locked
from dylora.suite.records import Record, write_record
from dylora.training.loop import Progress
from dylora.training.tracking import Track
from dylora.training.workers import is_main


@contextmanager
def alone(folder: Path, final: Path) -> Iterator[None]:
    """Keep other processes off the run; at the end what is in `folder` takes its `final` place.

    The checkpoint goes last: a call that is killed before can be repeated without training again.
    """
    with locked(final) if is_main() else nullcontext():
        yield
        if not is_main():
            return
        if folder != final:
            _replace(final, folder)
        shutil.rmtree(final / "checkpoint", ignore_errors=True)


def _replace(final: Path, folder: Path) -> None:
    """Let `folder` take the place of `final`, of which no half is ever to be seen."""
    former = folder.with_name(f"{folder.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        final.rename(former)
    folder.rename(final)
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def kept(folder: Path, record: Record, track: Track) -> Iterator[Track]:
    """Keep the record on disk in step with what happens: running, then done or why not.

    The history is written first, from the progress that the yielded function was given last before
    it handed it to `track`.
    """
    progress: Progress | None = None

    def follow(current: Progress) -> None:
        nonlocal progress
        progress = current
        track(current)

    _reset_peak_memory()
    _write(folder, record, progress)
    try:
        yield follow
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # a launcher's handler exits
        record["status"] = "interrupted" if stopped else "failed"
        record["error"] = str(error) if isinstance(error, UserError) else traceback.format_exc()
        with suppress(UserError):  # on a disk that takes nothing the first error is the one to see
            _write(folder, record, progress)
        raise
    record["status"] = "done"
    _write(folder, record, progress)


def _write(folder: Path, record: Record, progress: Progress | None) -> None:
    if not is_main():
        return
    if progress is not None:
        write_history(folder, progress.steps, progress.epochs)
    write_record(folder, record)


def _reset_peak_memory() -> None:
    """Let the peak be this run's, not that of an earlier one in the same process (Linux, CUDA)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Peak of the process's resident memory and, on a GPU, of torch's allocations, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    status = Path("/proc/self/status")
    if status.exists():
        host = 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    on_gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host": host, "device": on_gpu}
