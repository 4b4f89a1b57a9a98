"""Start an adapter from another one: a run before, a PEFT folder, a file of loralib."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from dylora.adapter import (
    AdapterConfig,
    adapter_config,
    adapter_state,
    load_adapter_state,
    read_adapter,
)
from dylora.errors import UserError
from dylora.heads import HEADS, head_module, new_modules


def warm_start(
    model: nn.Module, path: str | Path, alpha: float | None = None, head: Sequence[str] = HEADS
) -> None:
    """Copy trained tensors into `model`, in place; its head stays as it is.

    `path` and `alpha` are those of `load_adapter`, `head` is that of `adapt`. The deltas at
    max_rank become the source's: the ratio of its scaling to the model's is multiplied into B. At a
    lower rank a DyLoRA model scales by alpha/b, so it has the source's deltas there if that is a
    DyLoRA adapter as well. A model without low-rank adapters starts from a file of such a model.
    Raises UserError naming the file, and the module, that does not fit.
    """
    own = adapter_config(model)
    names = [*head, *new_modules(model)]
    read, kept = read_start(path, own, alpha), adapter_state(model)
    tensors = {name: tensor for name, tensor in read.items() if not head_module(names, name)}
    tensors |= {name: tensor for name, tensor in kept.items() if head_module(names, name)}
    load_adapter_state(model, tensors, str(path))


def read_start(
    path: str | Path, own: AdapterConfig | None, alpha: float | None = None
) -> dict[str, Tensor]:
    """Trained tensors of `path`, scaled for a model with `own` (None: no low-rank adapter).

    Needs no model, so that what does not fit shows before a backbone is there: raises UserError for
    another kind of adapter, another rank and other target modules.
    """
    tensors, facts = read_adapter(path, alpha)
    if own is None and "adapter" in facts:
        raise UserError(f"{path} is a low-rank adapter, and starts only such: a method with ranks")
    if own is None:
        return tensors
    if "adapter" not in facts:
        raise UserError(f"{path} holds fully trained weights, no low-rank adapter to start from")
    theirs = AdapterConfig(**json.loads(facts["adapter"]))
    if theirs.max_rank != own.max_rank:
        raise UserError(
            f"{path} has rank {theirs.max_rank}, the adapter to start max_rank={own.max_rank}: set "
            f"max_rank={theirs.max_rank} (dylora run: method.max_rank={theirs.max_rank})"
        )
    _check_targets(path, tensors, facts, own)
    scalings = zip(theirs.weights(own.max_rank), own.weights(own.max_rank), strict=True)
    ratios = [of_theirs / of_own for of_theirs, of_own in scalings]
    return {n: t * t.new_tensor(ratios) if n.endswith(".lora_B") else t for n, t in tensors.items()}


def _check_targets(
    path: str | Path, tensors: dict[str, Tensor], facts: dict[str, str], own: AdapterConfig
) -> None:
    """Every adapted layer of the file is a target module, and every target module is in it."""
    modules = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    for target in own.target_modules:
        suffix, _, parts = target.partition(":")
        endings = [f"{suffix}.{part}" for part in parts.split(",")] if parts else [suffix]
        for ending in endings:
            fitting = [m for m in modules if m == ending or m.endswith("." + ending)]
            if not fitting:
                raise UserError(_other_targets(path, f"does not adapt {ending}", facts))
            modules = [m for m in modules if m not in fitting]
    if modules:
        text = f"adapts {modules[0]}, which is none of {', '.join(own.target_modules)}"
        raise UserError(_other_targets(path, text, facts))


def _other_targets(path: str | Path, fault: str, facts: dict[str, str]) -> str:
    names = json.loads(facts["adapter"])["target_modules"]
    short = dict.fromkeys(name.rpartition(".")[2] for name in names)
    wanted = ",".join(f'"{name}"' if ":" in name else name for name in short)
    backbone = f" (of {facts['base_model']})" if "base_model" in facts else ""
    return (
        f"{path}{backbone} {fault}. If it is for this backbone, set target_modules to "
        f"its own: model.target_modules=[{wanted}]"
    )
