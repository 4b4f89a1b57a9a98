"""Unfinished training on disk: saved whole or not at all, resumed to the bit."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dylora.adapter import adapter_state, load_adapter_state
from dylora.errors import UserError
from dylora.files import whole_file
from dylora.training.workers import from_all, is_main, own_share

STATE, FORMER = "state.pt", "former.pt"  # the last checkpoint and the one before


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

    All processes of a run call it, each has generators of its own; the main one writes. The
    checkpoint before is kept, in case that a disk damages this one.
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
    with whole_file(folder / STATE) as unfinished:
        with unfinished.open("wb") as file:  # by itself torch.save does not say what went wrong
            torch.save(state, file)
        if (folder / STATE).exists():
            (folder / STATE).replace(folder / FORMER)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: Any, scheduler: Any, scaler: Any | None
) -> dict[str, Any] | None:
    """Put a saved state back in place and return its progress; None if there is none.

    A damaged one is named and the one before used; UserError if none is whole.
    """
    found = _last_whole(folder)
    if found is None:
        return None
    path, state = found
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


def _last_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, with its content; None if there is none at all."""
    found = [path for path in (folder / STATE, folder / FORMER) if path.exists()]
    for path in found:
        try:
            return path, _read(path)
        except Exception as error:  # a flipped bit can ask for any feature that the format has
            if is_main():
                print(f"{path} is damaged and not used: {str(error).partition(chr(10))[0]}")
    if found:
        raise UserError(f"no checkpoint in {folder} is whole: delete it to begin anew")
    return None


def _read(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote; an error if a checksum, which `torch.load` ignores, is wrong."""
    with zipfile.ZipFile(path) as archive:
        part = archive.testzip()
    if part:
        raise ValueError(f"the checksum of {part} is wrong")
    return torch.load(path, map_location="cpu", weights_only=True)
