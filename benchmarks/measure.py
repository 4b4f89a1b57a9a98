"""Times of several programs taken in turns, and ratios that a busy machine does not change."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "accelerate", "peft")
Times = dict[str, list[float]]  # name -> seconds of each repeat


@dataclass(frozen=True)
class Measured:
    """CPU and wall seconds of everything, repeat by repeat: the same index, the same moment."""

    cpu: Times
    wall: Times

    def rows(self, base: str) -> list[dict[str, Any]]:
        """Medians, and the ratio to `base`: its median and quartiles over the repeats.

        The ratio is one of times taken one after the other, so that what slows the machine down for
        a while is in both.
        """
        return [
            {
                "name": name,
                "cpu_seconds": round(statistics.median(cpu), 4),
                "wall_seconds": round(statistics.median(self.wall[name]), 4),
                "ratio": spread([a / b for a, b in zip(cpu, self.cpu[base], strict=True)]),
            }
            for name, cpu in self.cpu.items()
        ]


def spread(values: list[float]) -> list[float]:
    """Median, lower and upper quartile."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return [round(value, 3) for value in (statistics.median(values), low, high)]


def in_turns(work: Mapping[str, Callable[[], object]], repeats: int) -> Measured:
    """Do everything once to warm up, then everything in turns, `repeats` times."""
    for do in work.values():
        do()
    cpu: Times = {name: [] for name in work}
    wall: Times = {name: [] for name in work}
    for _ in range(repeats):
        for name, do in work.items():
            cpu_before, before = time.process_time(), time.perf_counter()
            do()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            cpu[name].append(time.process_time() - cpu_before)
            wall[name].append(time.perf_counter() - before)
    # A GPU's time is not the process's: there the wall is the measure.
    return Measured(wall if torch.cuda.is_available() else cpu, wall)


def machine() -> dict[str, Any]:
    """Where the times are from."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "gpu": gpu,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }


def matrix_ceiling(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """Operations per second of a plain square matrix product: what no step can exceed."""
    square = torch.randn(size, size, device=device).to(dtype)
    measured = in_turns({"product": lambda: square @ square}, repeats=7)
    return 2 * size**3 / statistics.median(measured.cpu["product"])
