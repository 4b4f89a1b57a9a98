"""Short runs at once: some workers of one thread each, or one worker of several threads."""

import os
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.loops import examples, our_run
from benchmarks.measure import spread
from dylora.training.experiment import quiet_libraries
from dylora.training.machine import keep_freed_memory

EXAMPLES = 96  # of a run: a second of one thread
LAYOUTS = {  # workers, threads of each; all runs of a layout are at once
    "1 worker of 1 thread": (1, 1),
    "2 workers of 1 thread": (2, 1),
    "4 workers of 1 thread": (4, 1),
    "1 worker of 2 threads": (1, 2),
}
BASE = "1 worker of 1 thread"
Times = dict[str, list[tuple[float, float]]]  # layout -> wall seconds, CPU seconds of a run


def throughput(size: str, repeats: int) -> list[dict[str, Any]]:
    """Runs per minute of each layout, in turns, after one run of each worker to warm up."""
    context = get_context("spawn")  # a fork would have no threads left to compute with
    pipes = []
    for _ in range(max(workers for workers, _ in LAYOUTS.values())):
        own, other = context.Pipe()
        context.Process(target=_serve, args=(other, size), daemon=True).start()
        other.close()  # so that a worker that dies ends the wait for it
        pipes.append(own)
    _at_once(pipes, 1)
    times: Times = {name: [] for name in LAYOUTS}
    for _ in range(repeats):
        for name, (workers, threads) in LAYOUTS.items():
            times[name].append(_at_once(pipes[:workers], threads))
    for pipe in pipes:
        pipe.send(0)
    return rows(times)


def _serve(pipe: Connection, size: str) -> None:
    """A worker: a run with as many threads as it is told, until that is 0; back its CPU seconds."""
    quiet_libraries()
    keep_freed_memory()
    run = our_run(size, examples(EXAMPLES), "cpu")
    while threads := pipe.recv():
        torch.set_num_threads(threads)
        before = time.process_time()
        run()
        pipe.send(time.process_time() - before)


def _at_once(pipes: Sequence[Connection], threads: int) -> tuple[float, float]:
    """Wall seconds of a run on each worker, all at once, and the mean of their CPU seconds."""
    before = time.perf_counter()
    for pipe in pipes:
        pipe.send(threads)
    cpu = [pipe.recv() for pipe in pipes]
    return time.perf_counter() - before, sum(cpu) / len(cpu)


def rows(times: Times) -> list[dict[str, Any]]:
    """Medians, and the throughput as a ratio to `BASE`, repeat by repeat.

    Predicted for an idle machine, where each core that has a thread to run adds as much.
    """
    cores = os.cpu_count() or 1
    speeds = {
        name: [60 * LAYOUTS[name][0] / wall for wall, _ in taken] for name, taken in times.items()
    }
    found = []
    for name, taken in times.items():
        workers, threads = LAYOUTS[name]
        found.append(
            {
                "name": name,
                "workers": workers,
                "threads": threads,
                "runs_per_minute": spread(speeds[name])[0],
                "cpu_seconds_of_a_run": spread([cpu for _, cpu in taken])[0],
                "ratio": spread([a / b for a, b in zip(speeds[name], speeds[BASE], strict=True)]),
                "predicted": min(workers * threads, cores),
            }
        )
    return found
