"""How a run uses the CPU: how many threads, and what becomes of freed memory."""

import ctypes
import os
import platform
import time
from pathlib import Path

import torch

ALLOWED = torch.get_num_threads()  # by OMP_NUM_THREADS, a launcher, or the cores of this process
SMALL = 5_000_000  # parameters: below, threads cost more than they bring
MARGIN = 0.25  # of a core that others may use and still leave it free: every machine has services
HERTZ = os.sysconf("SC_CLK_TCK")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class OtherPrograms:
    """How many cores the machine's other programs have kept busy since this was made."""

    def __init__(self) -> None:
        self._started, self._before = time.perf_counter(), _seconds_of_others()

    def cores(self) -> float:
        """A mean over the time since; 0 where the system does not say (it does on Linux)."""
        seconds = time.perf_counter() - self._started
        return max(0.0, _seconds_of_others() - self._before) / seconds


def _seconds_of_others() -> float:
    """CPU seconds of all processes but this one, since the machine started."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    fields = [int(value) for value in path.read_text().partition("\n")[0].split()[1:9]]
    idle, waiting = fields[3:5]
    return (sum(fields) - idle - waiting) / HERTZ - time.process_time()


def thread_count(parameters: int, busy: float, wanted: int | None = None) -> int:
    """The threads of a run: `wanted`, else one for a small model, else the cores that are free.

    `busy` is how many cores others use. A thread on a core that another program uses makes all
    wait for it at every operation, so that two threads can be slower than one.
    """
    if wanted is not None:
        return wanted
    if parameters < SMALL:
        return 1
    return max(1, min(ALLOWED, int((os.cpu_count() or 1) - busy + MARGIN)))


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed: each step asks for the same sizes again.

    By itself glibc gives large blocks back to the system at once, and the system clears every page
    of the next one: a tenth of the time of a pass whose tensors are large.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for threshold in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            libc.mallopt(threshold, 1 << 30)
