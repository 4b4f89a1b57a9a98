"""Unfinished training on disk: saved whole or not at all, resumed to the bit."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dylora.adapter import adapter_state, load_adapter_state
from dylora.files import whole_file
from dylora.training.workers import from_all, is_main, own_share


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: Any,
    scheduler: Any,
    scaler: Any | None,
    progress: dict[str, Any],
) -> None:
    """Write all that the next step depends on: trained tensors, optimizer, schedule, generators.

    `scaler` is the loss's in fp16, None otherwise.

    All processes of a run call it, each has generators of its own; the main one writes.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    generators = from_all({"cpu": torch.get_rng_state(), "cuda": cuda})
    if not is_main():
        return
    state = {
        "trained": adapter_state(model),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "generators": generators,
        "progress": progress,
    }
    with whole_file(folder / "state.pt") as unfinished:
        torch.save(state, unfinished)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: Any, scheduler: Any, scaler: Any | None
) -> dict[str, Any] | None:
    """Put a saved state back in place and return its progress; None if there is none."""
    path = folder / "state.pt"
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    load_adapter_state(model, state["trained"], str(path))
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])
    own = own_share(state["generators"])
    if own:  # none for this process if the run was started with fewer
        torch.set_rng_state(own[0]["cpu"])
        if own[0]["cuda"]:
            torch.cuda.set_rng_state_all(own[0]["cuda"])
    return state["progress"]
