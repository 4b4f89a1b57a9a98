"""Any rank on a model of PEFT, whose LoRA layers keep their matrices, names and files.

A layer of PEFT asks the object in `layer.lora_variant[adapter]` what its adapter adds: the class
`peft.tuners.lora.layer.LoraVariant`, which PEFT has for DoRA and its like. `nest` puts one there
that runs our own low-rank path on PEFT's matrices. All else of PEFT stays: parameters, optimizers,
quantized layers, several adapters, `modules_to_save`, and `save_pretrained`, which writes the plain
LoRA of max_rank and, beside it, the method (dylora.json) for `load_nested`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dylora.adapter import AdapterConfig
from dylora.errors import UserError
from dylora.files import NESTING, write_text
from dylora.importers import NOT_PLAIN, PEFT_PREFIX, read_nesting
from dylora.layers import LowRank
from dylora.methods import adapter_method
from dylora.rank import Rank, RankState

try:
    from peft import LoraConfig, PeftModel
    from peft.tuners.lora.layer import LoraLayer, LoraVariant
except ImportError as error:
    raise UserError("models of PEFT need PEFT 0.18 or later: pip install 'peft>=0.18'") from error

# The layers of PEFT that ask lora_variant in forward and, if they can merge, in merge.
LAYERS = ("Linear", "Linear8bitLt", "Linear4bit", "GPTQLoraLinear", "HqqLoraLinear")
ModelT = TypeVar("ModelT", bound=nn.Module)


class NestedLowRank(LowRank):
    """The low-rank path over the matrices and the dropout that a layer of PEFT has at the time."""

    def __init__(
        self, layer: LoraLayer, adapter: str, rank_state: RankState, frozen: bool, name: str
    ) -> None:
        nn.Module.__init__(self)
        self.name = name
        rank_state.layers.add(name)
        self.rank_state, self.frozen, self.adapter = rank_state, frozen, adapter
        self._owner = (layer,)  # in a tuple: PEFT's layer is no part of this module

    @property
    def layer(self) -> Any:
        return self._owner[0]

    @property
    def lora_A(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        return self.layer.lora_A[self.adapter].weight

    @property
    def lora_B(self) -> Tensor:  # type: ignore[override]  # noqa: N802
        return self.layer.lora_B[self.adapter].weight

    @property
    def dropout(self) -> nn.Module:  # type: ignore[override]
        return self.layer.lora_dropout[self.adapter]

    @property
    def scale(self) -> float:
        """The layer's scaling now over that of training: 1, until PEFT's `set_scale` or a swap."""
        state = self.rank_state
        return self.layer.scaling[self.adapter] * state.max_rank / state.alpha

    def forward(self, x: Tensor) -> Tensor:
        self.training = self.layer.training
        delta = super().forward(x)
        return delta if self.scale == 1 else delta * self.scale

    def delta(self) -> Tensor:
        return super().delta() * self.scale


class NestedLayer(LoraVariant):
    """What PEFT asks of one adapter of one layer, and what our functions ask of an adapted layer.

    All merging is at the rank in force, and unmerging at the rank that was merged. PEFT's own
    variants have static methods; ours are called in the same way and know their rank.
    """

    def __init__(self, low_rank: NestedLowRank, config: AdapterConfig) -> None:
        self.low_rank, self.config = low_rank, config
        self.rank_state, self.adapter = low_rank.rank_state, low_rank.adapter
        self._merged_rank: Rank = None

    @property
    def merged(self) -> bool:
        return self.adapter in self.low_rank.layer.merged_adapters

    @property
    def base(self) -> Any:
        """The backbone's own layer."""
        return self.low_rank.layer.get_base_layer()

    def delta(self) -> Tensor:
        """What the adapter adds to `base.weight`, in that weight's shape."""
        delta = self.low_rank.delta()
        return delta.T if self.low_rank.layer.fan_in_fan_out else delta

    def forward(  # type: ignore[override]
        self, module: LoraLayer, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any
    ) -> Tensor:
        """`result`, the backbone's output, plus the delta at the rank in force."""
        if self.rank_state.bare():
            return result
        return result + self.low_rank(x).to(result.dtype)

    @torch.no_grad()
    def merge_safe(  # type: ignore[override]
        self, module: LoraLayer, active_adapter: str, orig_weight: Tensor
    ) -> Tensor:
        """`orig_weight` plus the delta at the rank in force, a new tensor."""
        rank = self.rank_state.rank
        if rank is None or isinstance(rank, Tensor):
            raise UserError("only one rank can be merged: dylora.set_rank(model, RANK) first")
        self._merged_rank = rank
        return orig_weight + self.delta().to(orig_weight.dtype)

    def merge_unsafe(  # type: ignore[override]
        self, module: LoraLayer, active_adapter: str, orig_weight: Tensor
    ) -> None:
        """The same in place."""
        orig_weight.data = self.merge_safe(module, active_adapter, orig_weight.data)

    @torch.no_grad()
    def unmerge(  # type: ignore[override]
        self, module: LoraLayer, active_adapter: str, orig_weight: Tensor
    ) -> Tensor:
        """`orig_weight` less the delta that was merged."""
        with self.rank_state.block(self._merged_rank):
            return orig_weight - self.delta().to(orig_weight.dtype)


class NestedConfig(LoraConfig):
    """PEFT's configuration of a nested adapter; its folder gets dylora.json as well."""

    nesting: Mapping[str, Any]  # the arguments of `nest`

    @classmethod
    def of(cls, config: LoraConfig, nesting: Mapping[str, Any]) -> "NestedConfig":
        made = cls.__new__(cls)
        made.__dict__.update(config.__dict__)
        made.nesting = nesting
        return made

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write adapter_config.json, as PEFT reads it, and dylora.json."""
        super().save_pretrained(save_directory, **kwargs)
        write_text(Path(save_directory) / NESTING, json.dumps(dict(self.nesting), indent=2) + "\n")


def nest(
    model: ModelT, method: str = "dylora", adapter: str = "default", frozen: bool = False
) -> ModelT:
    """Make the LoRA layers of a model of PEFT any-rank, in place; the rank in force is its r.

    `model` is what `peft.get_peft_model` or `PeftModel.from_pretrained` gives, `adapter` the name
    of one of its adapters. From then on `at_rank`, `set_rank`, the callback of the Trainer and all
    else that works on a model of `dylora.adapt` works on this one, on its active adapters. Values
    and gradients are those of our own layers with the same matrices; at r they are PEFT's own.

    Raises UserError, and changes nothing, without such LoRA layers; for a variant of LoRA such as
    DoRA, whose magnitudes belong to one rank; for a kind of layer that takes no variant; if layers
    differ in r or scaling; and for what is merged or nested already.
    """
    found = adapter_method(method)
    config = _plain_config(model, adapter)
    if any("rank_state" in module.__dict__ for module in model.modules()):
        raise UserError("this model has an adapter of dylora.adapt too: keep one of the two")
    layers = {
        name.removeprefix(PEFT_PREFIX): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and adapter in module.r
    }
    for name, layer in layers.items():
        _check_layer(name, layer, adapter)
    ranks = {layer.r[adapter] for layer in layers.values()}
    scalings = {layer.scaling[adapter] for layer in layers.values()}
    if len(ranks) != 1 or len(scalings) != 1:
        raise UserError(
            f"the layers of adapter {adapter!r} differ in r or scaling: make the LoraConfig "
            "without rank_pattern and alpha_pattern, as every rank is trained anyhow"
        )
    max_rank = ranks.pop()
    state = RankState(found, max_rank, scalings.pop() * max_rank)
    dropout, head = config.lora_dropout, list(config.modules_to_save or [])
    ours = AdapterConfig(list(layers), max_rank, state.alpha, method, dropout, frozen, head)
    for name, layer in layers.items():
        part = NestedLowRank(layer, adapter, state, frozen, name)
        layer.lora_variant[adapter] = NestedLayer(part, ours)
    nesting = {"method": method, "frozen": frozen}
    model.peft_config[adapter] = NestedConfig.of(config, nesting)  # type: ignore[index, operator, assignment]
    return model


def load_nested(
    model: nn.Module, folder: str | Path, adapter: str = "default", **options: Any
) -> PeftModel:
    """A bare model with the adapter that `save_pretrained` wrote for a nested one, nested again.

    `options` are those of `PeftModel.from_pretrained`, such as is_trainable=True. For another
    adapter of one model: `model.load_adapter(folder, name)`, then `nest`. Raises UserError for a
    folder that does not say its method.
    """
    nesting = read_nesting(Path(folder))
    if not nesting:
        raise UserError(
            f"{folder} has no {NESTING}: load it with peft.PeftModel.from_pretrained and give the "
            "method yourself, dylora.nest(model, method=...)"
        )
    loaded = PeftModel.from_pretrained(model, str(folder), adapter_name=adapter, **options)
    return nest(loaded, adapter=adapter, **nesting)


def _plain_config(model: nn.Module, adapter: str) -> LoraConfig:
    configs = getattr(model, "peft_config", {})
    if not configs:
        raise UserError(
            "this model has no LoRA layers of PEFT: give it some with peft.get_peft_model(model, "
            "peft.LoraConfig(...)), or ours with dylora.adapt(model, ...)"
        )
    if adapter not in configs:
        raise UserError(f"there is no adapter {adapter!r}; there is {', '.join(configs)}")
    config = configs[adapter]
    if isinstance(config, NestedConfig):
        raise UserError(f"adapter {adapter!r} is nested already")
    if config.peft_type != "LORA":
        raise UserError(f"adapter {adapter!r} is of type {config.peft_type.value}, not LORA")
    for option in NOT_PLAIN:
        if getattr(config, option, None):
            raise UserError(
                f"adapter {adapter!r} has {option} set, and only a plain LoRA can be cut to lower "
                "ranks: leave it out of the LoraConfig"
            )
    return config


def _check_layer(name: str, layer: LoraLayer, adapter: str) -> None:
    kind = type(layer).__name__
    if kind not in LAYERS:
        raise UserError(
            f"{name} is PEFT's {kind}, which cannot be nested, only linear layers can: leave it "
            "out of target_modules"
        )
    if adapter in layer.merged_adapters:
        raise UserError(f"adapter {adapter!r} is merged: model.unmerge_adapter() first")
