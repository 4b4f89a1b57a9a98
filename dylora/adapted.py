"""What an adapted model consists of, ours or one of PEFT: its layers, merged or held still."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dylora.errors import UserError
from dylora.importers import PEFT_PREFIX
from dylora.layers import AdaptedLayer, LoRAFused, LoRALinear, LowRank
from dylora.rank import at_rank, checked_rank, nested_layers, rank_state

ModelT = TypeVar("ModelT", bound=nn.Module)


def adapter_layers(model: nn.Module) -> dict[str, AdaptedLayer]:
    """Adapted layers by the name that their base layer has in the bare backbone."""
    own = {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear | LoRAFused)}
    return own | nested_by_name(model)


def nested_by_name(model: nn.Module) -> dict[str, Any]:
    """The layers of the one active adapter of a model of PEFT; UserError if there are several."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        layers = nested_layers(module)
        if len(layers) > 1:
            names = " and ".join(layer.adapter for layer in layers)
            raise UserError(f"adapters {names} are both active: model.set_adapter(NAME) first")
        found |= {name.removeprefix(PEFT_PREFIX): layer for layer in layers}
    return found


def low_rank_parts(model: nn.Module) -> dict[str, LowRank]:
    """The low-rank modules by the name of their layer, that of a fused one as `<layer>.<part>`."""
    own = {
        name.removesuffix(".low_rank").replace(".parts.", "."): module
        for name, module in model.named_modules()
        if isinstance(module, LowRank)
    }
    return own | {name: layer.low_rank for name, layer in nested_by_name(model).items()}


def tied_layers(model: nn.Module) -> list[str]:
    """Names of adapted layers whose weight is also another module's, such as the embedding's."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    return [
        name for name, layer in adapter_layers(model).items() if uses[id(layer.base.weight)] > 1
    ]


@contextmanager
def merged(model: ModelT, rank: int | Mapping[str, int]) -> Iterator[ModelT]:
    """Inside the block the deltas of `rank` are added into the weights: no adapter path runs.

    `rank` is an int, or one for each adapted layer by its name.
    For inference: faster for many forward passes. The original tensors, not copies computed back,
    are restored afterwards, bit for bit. A weight that an adapted layer shares with another, such
    as a tied lm_head's, stays as it is for the other. The weights are merged for all threads.
    Raises UserError outside [1, max_rank], inside another such block, while another thread is
    inside `at_rank`, and if the weights are quantized: a sum would not fit into their few values.
    """
    state, layers = rank_state(model), list(adapter_layers(model).values())
    if not isinstance(rank, Mapping):
        rank = checked_rank(rank, state.max_rank)
    if not all(layer.base.weight.is_floating_point() for layer in layers):
        raise UserError("quantized weights cannot be merged: load the backbone unquantized first")
    with at_rank(model, rank), torch.no_grad():
        summed = [layer.base.weight + layer.delta().to(layer.base.weight.dtype) for layer in layers]
    originals = [layer.base.weight for layer in layers]
    with state.merged():
        try:
            for layer, weight in zip(layers, summed, strict=True):
                layer.base.weight = nn.Parameter(weight, requires_grad=False)
            yield model
        finally:
            for layer, original in zip(layers, originals, strict=True):
                layer.base.weight = original


@contextmanager
def hold_untrained_rows(model: nn.Module) -> Iterator[None]:
    """Wrap `optimizer.step()`: rows of A and columns of B without a gradient do not move at all.

    Without it AdamW's momentum and weight decay also move the rows that the current rank left
    out. A row counts as left out when its whole gradient is zero or absent.
    """
    held: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in low_rank_parts(model).values():
        held += [_untrained(part.lora_A, component_dim=0), _untrained(part.lora_B, 1)]
    yield
    with torch.no_grad():
        for parameter, untrained, before in held:
            parameter.copy_(torch.where(untrained, before, parameter))


def _untrained(parameter: Tensor, component_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The parameter, a mask over its components that broadcasts over it, and a copy of it."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    untrained = (gradient == 0).all(dim=1 - component_dim, keepdim=True)
    return parameter, untrained, parameter.detach().clone()
