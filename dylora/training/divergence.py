"""Training that is no longer made of numbers ends at once, and leaves what it takes to see why."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dylora.adapter import adapter_state
from dylora.errors import UserError
from dylora.files import whole_file
from dylora.training.workers import is_main

DUMP = "divergence.pt"  # in the folder of a run


def diverged(
    what: str,
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    folder: Path,
    step: int,
    rank: float,
    learning_rate: float,
) -> UserError:
    """The error to raise when `what` is no finite number in `step`, after a dump into `folder`.

    The dump has the trained tensors as they were in that step and its micro-batches: their loss at
    its rank is the one that failed, up to dropout. torch.load(weights_only=True) reads it.
    """
    path = folder / DUMP
    if is_main():
        facts = {"step": step, "rank": rank, "learning_rate": learning_rate}
        trained = {name: tensor.cpu() for name, tensor in adapter_state(model).items()}
        kept = [{name: tensor.cpu() for name, tensor in batch.items()} for batch in batches]
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            torch.save({**facts, "trained": trained, "batches": kept}, file)
    return UserError(
        f"{what} at step {step}, rank {rank:g}, learning rate {learning_rate:g}: try a lower "
        f"train.learning_rate or method.alpha. The weights and the batch of this step: {path}"
    )
