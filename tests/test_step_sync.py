"""An unwatched step never waits for the device: nothing in it asks for a number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from one_step import take_steps


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


METHODS: list[dict[str, Any]] = [
    {},
    {"rank_scope": "sample"},
    {"frozen": True, "strict_freeze": True},
    {"loss": "sum"},
]
every_kind = pytest.mark.parametrize(
    ("generates", "method"), [(kind, m) for kind in (False, True) for m in METHODS]
)


@every_kind
def test_an_unwatched_step_asks_the_device_for_no_number(
    generates: bool, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors on torch's meta device have no values: .item(), .tolist() and bool() raise there."""
    take_steps(monkeypatch, "meta", tmp_path, generates, **method)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@every_kind
def test_an_unwatched_step_does_not_wait_for_a_gpu(
    generates: bool, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        take_steps(monkeypatch, "cuda", tmp_path, generates, **method)
    finally:
        torch.cuda.set_sync_debug_mode("default")
