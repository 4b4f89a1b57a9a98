"""Which layers of a backbone get an adapter: by name, all linear ones, or the papers' choice."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from dylora.errors import UserError
from dylora.heads import head_module
from dylora.layers import FUSED_PARTS

ALL_LINEAR = "all-linear"  # PEFT's word for it

# Names that transformers' models give to the layers of the query and the value, the first that a
# model has; for those that compute query, key and value in one layer, that layer.
QUERY_AND_VALUE = (
    ("query", "value"),
    ("q_proj", "v_proj"),
    ("query_proj", "value_proj"),
    ("q_lin", "v_lin"),
    ("q", "v"),
    ("c_attn:q,v",),
    ("query_key_value",),
)


def chosen_targets(
    model: nn.Module, targets: Sequence[str] | str | None, heads: Sequence[str]
) -> list[str]:
    """The names of the layers to adapt: those given, or those that None or "all-linear" mean.

    None: query and value, as in the papers, or all linear layers where none has a known name. All
    linear layers are those of the backbone: neither the head nor the output embedding. Raises
    UserError for what is no list of names.
    """
    if targets is None:
        names = {name.rpartition(".")[2] for name in linear_names(model, heads)}
        for known in QUERY_AND_VALUE:
            if {name.partition(":")[0] for name in known} <= names:
                return list(known)
    if targets is None or targets == ALL_LINEAR:
        return _all_linear(model, heads)
    check_names("target_modules", targets)
    if not targets:
        raise UserError('target_modules is empty: name layers, such as ["query", "value"]')
    return list(targets)


def check_names(option: str, names: Sequence[str]) -> None:
    """Raises UserError unless `names` is a list of names."""
    if isinstance(names, str):
        raise UserError(f'{option} is the text {names!r}: give a list, such as ["{names}"]')
    if not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{option} is {list(names)}: every item must be a name")


def linear_names(model: nn.Module, heads: Sequence[str]) -> list[str]:
    """The full names of the linear layers outside the head."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and head_module(heads, name) is None
    ]


def target_layers(
    model: nn.Module, targets: Sequence[str], heads: Sequence[str]
) -> dict[str, list[str]]:
    """The layers that `targets` name, by their full names, with the parts of a fused one.

    Raises UserError for a name without a layer, and for a layer that cannot have an adapter.
    """
    names, layers = linear_names(model, heads), dict[str, list[str]]()
    for target in targets:
        suffix, _, parts = target.partition(":")
        found = [name for name in names if name == suffix or name.endswith("." + suffix)]
        if not found:
            ends = sorted({name.rpartition(".")[2] for name in names})
            raise UserError(
                f"target module {target!r} matches no linear layer of {type(model).__name__}; "
                f"its linear layers are named {', '.join(ends)}"
            )
        for name in found:
            if name in layers:
                raise UserError(f"target_modules name {name} twice, the second time as {target!r}")
            layers[name] = parts.split(",") if parts else []
            _check_layer(model, name, layers[name])
    return layers


def _check_layer(model: nn.Module, name: str, parts: list[str]) -> None:
    layer = model.get_submodule(name)
    same = [n for n, m in model.named_modules(remove_duplicate=False) if m is layer]
    if len(same) > 1:
        raise UserError(
            f"{' and '.join(same)} are one module; an adapter would be for one of them only: "
            "leave it out of target_modules"
        )
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        raise UserError(
            f"{name} is a part of torch's MultiheadAttention, which reads its weight and never "
            "calls it, so that an adapter would have no effect: leave it out of target_modules"
        )
    if not parts:
        return
    width = layer.weight.shape[1] if isinstance(layer, Conv1D) else layer.out_features
    assert isinstance(width, int)
    if not has_conv1d(model) or width % 3 or not set(parts) <= set(FUSED_PARTS):
        raise UserError(
            f"target module {name}:{','.join(parts)} names parts of a fused layer; that needs "
            f"GPT-2's layer of three equal parts, out of {', '.join(FUSED_PARTS)}"
        )


def has_conv1d(model: nn.Module) -> bool:
    """Whether the backbone's linear layers are GPT-2's Conv1D, before they were quantized too."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return kind == "gpt2" or any(isinstance(module, Conv1D) for module in model.modules())


def _all_linear(model: nn.Module, heads: Sequence[str]) -> list[str]:
    output = getattr(model, "get_output_embeddings", lambda: None)()
    modules = dict(model.named_modules())
    names = [
        name
        for name in linear_names(model, heads)
        if modules[name] is not output
        and not isinstance(modules[name], NonDynamicallyQuantizableLinear)
    ]
    if not names:
        raise UserError(f"{type(model).__name__} has no linear layer outside its head to adapt")
    return names
