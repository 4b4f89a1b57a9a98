"""How cost grows with rank, with the number of ranks scored, and with batch and rank in memory."""

from typing import Any

import torch
from torch import Tensor, nn

import dylora
from benchmarks.measure import in_turns
from benchmarks.peers import RANK, SIZES, TARGETS, Batch, backbone, batch_of, ours, train_step

RANKS = (1, 2, 4, 8, 16, 32, 64)
SCORED = (1, 2, 4, 8)
BATCHES = (8, 16, 32)


def step_against_rank(size: str, batch: Batch, repeats: int) -> list[dict[str, Any]]:
    """A LoRA step at each rank, beside what its operations alone would cost."""
    work = {f"rank {r}": train_step(ours(backbone(size), "lora", r), batch) for r in RANKS}
    rows = in_turns(work, repeats).rows("rank 1")
    for rank, row in zip(RANKS, rows, strict=True):
        row["predicted"] = round(predicted_step(size, rank) / predicted_step(size, 1), 3)
    return rows


def predicted_step(size: str, rank: int) -> float:
    """Operations of a step for each token and layer, in units of the layer's own forward pass.

    The frozen weights take a forward pass and a gradient of their input, A and B a gradient of
    themselves too.
    """
    width, inner = SIZES[size]["hidden_size"], SIZES[size]["intermediate_size"]
    layer = 4 * width * width + 2 * width * inner
    return 2 + 3 * len(TARGETS) * 2 * width * rank / layer


def scoring_against_ranks(size: str, batch: Batch, repeats: int) -> list[dict[str, Any]]:
    """A batch scored at more and more ranks; only what is below the first adapter is shared."""
    device = batch["input_ids"].device.type
    model = ours(backbone(size)).to(device).eval()

    @torch.inference_mode()
    def score(count: int) -> None:
        for rank in range(1, count + 1):
            with torch.autocast(device, torch.bfloat16), dylora.at_rank(model, rank):
                model(**batch)

    work = {f"{count} of {RANK} ranks": lambda count=count: score(count) for count in SCORED}
    rows = in_turns(work, repeats).rows(f"1 of {RANK} ranks")
    for count, row in zip(SCORED, rows, strict=True):
        row["predicted"] = count
    return rows


def memory(size: str, length: int) -> list[dict[str, Any]]:
    """Bytes that autograd keeps for the backward pass: counted, each storage once."""
    found = []
    for rank in (1, RANK, 64):
        model = ours(backbone(size), "lora", rank).train()
        for count in BATCHES:
            kept = kept_bytes(model, batch_of(count, length))
            found.append({"rank": rank, "batch": count, "megabytes": round(kept / 1e6, 1)})
    return found


def kept_bytes(model: nn.Module, batch: Batch) -> int:
    """Of the activations of one forward pass; parameters do not count."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        loss = model(**batch).loss  # alive until counted, so that no storage is used again
    del loss
    return sum(storages.values())
