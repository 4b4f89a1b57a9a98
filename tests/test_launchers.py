"""What a sweep says when its launcher cannot work, and how many runs it counts at a time."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hydra_plugins.grids import _at_a_time

ROOT = Path(__file__).parents[1]


def launch(launcher: str, results: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    choices = [f"hydra/launcher={launcher}", "scale=smoke", f"paths.results={results}"]
    return subprocess.run(
        [sys.executable, "run.py", "-m", *choices],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray's launcher may be installed")
def test_a_launcher_that_is_not_installed_is_named(tmp_path: Path) -> None:
    done = launch("ray", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this launcher needs the package hydra-ray-launcher")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_slurm_without_slurm_ends_with_one_message(tmp_path: Path) -> None:
    done = launch("slurm", tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2
    assert 'the launcher gave up: Could not detect "srun"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 1), ({"n_jobs": 3}, 3), ({"n_jobs": -1}, None), ({"array_parallelism": 7}, 7)],
)
def test_fail_fast_looks_after_each_batch_that_runs_at_once(
    settings: dict[str, int], expected: int | None
) -> None:
    assert _at_a_time(settings) == expected or (expected is None and _at_a_time(settings) >= 1)
