"""Adapters on a whole model: put in, save, load."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dylora.adapted import nested_by_name, tied_layers
from dylora.errors import UserError
from dylora.files import ADAPTER
from dylora.heads import HEADS, freeze_all_but, whole_head
from dylora.importers import PEFT_PREFIX, read_loralib, read_peft, read_tensors
from dylora.layers import LoRAFused, LoRALinear, LowRank
from dylora.methods import adapter_method
from dylora.rank import RankState, checked_rank, set_rank
from dylora.targets import check_names, chosen_targets, has_conv1d, target_layers
from dylora.tensors import CHECKSUM, check_tensors, write_tensors

FORMAT = "dylora-adapter-1"
TASK_TYPES = {  # PEFT's names, by the ending of transformers' class names
    "ForSequenceClassification": "SEQ_CLS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True)
class AdapterConfig:
    """What is needed to build the same adapter again, saved with its tensors."""

    target_modules: list[str]
    max_rank: int
    alpha: float
    method: str = "dylora"
    dropout: float = 0.0
    frozen: bool = False
    head: list[str] = field(default_factory=lambda: list(HEADS))

    def weights(self, rank: int) -> list[float]:
        """The component weights (rank,) in use at `rank`; raises UserError on a wrong method."""
        return adapter_method(self.method).weights(rank, self.max_rank, self.alpha)


def adapt(
    model: ModelT,
    target_modules: Sequence[str] | str | None = None,
    max_rank: int = 8,
    alpha: float = 16.0,
    method: str = "dylora",
    dropout: float = 0.0,
    frozen: bool = False,
    head: Sequence[str] = HEADS,
) -> ModelT:
    """Freeze `model` and give it low-rank adapters, in place; the rank in force is max_rank.

    `target_modules` are names of linear layers as they end in `model.named_modules()`, such as
    "query" or "attention.self.query"; "c_attn:q,v" adapts the q and v parts of a fused layer of
    three. None means the query and value layers by the names that transformers' models give them,
    or all linear layers of the backbone, as "all-linear" does. Modules whose names end in one of
    `head`, where the model has them, are trained in full, and so is what `from_pretrained` has
    newly initialized outside the backbone. Build the model after seeding: A is drawn from torch's
    global generator. Raises UserError, and changes nothing, if a name matches no linear layer, if
    `method` is none with adapters, or if a part of the backbone is newly initialized.
    """
    if adapter_config(model) is not None:
        raise UserError("this model has an adapter already; adapt a freshly loaded one")
    if getattr(model, "peft_config", None):
        raise UserError("this is a model of PEFT: dylora.nest(model) makes its own layers any-rank")
    check_names("head", head)
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is {dropout}; it must be at least 0 and below 1")
    state = RankState(adapter_method(method), max_rank, alpha)
    heads = whole_head(model, head)
    targets = chosen_targets(model, target_modules, heads)
    layers = target_layers(model, targets, heads)
    max_rank = state.max_rank  # an int also where numpy's was given
    config = AdapterConfig(targets, max_rank, alpha, method, dropout, frozen, heads)
    freeze_all_but(model, head)
    for name, parts in layers.items():
        _wrap(model, name, parts, state, config)
    model.adapter_config = config  # type: ignore[assignment]
    return model


def _wrap(
    model: nn.Module, name: str, parts: list[str], state: RankState, config: AdapterConfig
) -> None:
    base = model.get_submodule(name)
    assert isinstance(base, nn.Linear | Conv1D)
    if isinstance(base, Conv1D):
        fan_in, fan_out = base.weight.shape
    else:  # quantized weights have shapes of their own
        fan_in, fan_out = base.in_features, base.out_features

    def low_rank(out_features: int, dropout: float) -> LowRank:
        made = LowRank(fan_in, out_features, state, dropout, config.frozen, name)
        return made.to(base.weight.device)

    wrapper: nn.Module
    if not parts:
        wrapper = LoRALinear(base, low_rank(fan_out, config.dropout))
    else:
        own = {part: low_rank(fan_out // 3, 0.0) for part in parts}
        wrapper = LoRAFused(base, own, config.dropout)
    model.set_submodule(name, wrapper.train(base.training))  # a model in use stays so


def adapter_config(model: nn.Module) -> AdapterConfig | None:
    """What the adapter of `model` was made with; None if it has none."""
    nested = next(iter(nested_by_name(model).values()), None)
    return getattr(model, "adapter_config", None) if nested is None else nested.config


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by their public names: `<layer>.lora_A`, `<c_attn>.q.lora_A`, `<head>.*`.

    Wrapper attributes do not show in the names. For a model without adapters: everything that is
    trained. The tensors share memory with the model.
    """
    if nested := nested_by_name(model):
        return _nested_state(model, next(iter(nested.values())).adapter)
    return {
        name.replace(".low_rank.", ".").replace(".parts.", "."): parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _nested_state(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """The tensors of one adapter of a model of PEFT by our names, also if it is not trainable."""
    tensors = {}
    name_in_peft = re.escape(adapter)
    for name, parameter in model.named_parameters():
        plain = re.sub(rf"\.(lora_[AB])\.{name_in_peft}\.weight$", r".\1", name)
        plain = plain.replace(f".modules_to_save.{adapter}.", ".")
        if plain != name:
            tensors[plain.removeprefix(PEFT_PREFIX)] = parameter.detach()
    return tensors


def load_adapter_state(model: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Copy trained tensors into `model`; UserError names what is missing or does not fit."""
    own = adapter_state(model)
    for name in sorted(own.keys() ^ tensors.keys()):
        lacks = source if name in own else "this model's adapter"
        raise UserError(f"{source} does not fit this model: {lacks} has no {name}")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise UserError(
                f"{source} does not fit this model: {name} has shape "
                f"{tuple(tensors[name].shape)}, the model's is {tuple(tensor.shape)}"
            )
        if not tensors[name].isfinite().all():
            raise UserError(f"{source}: {name} has values that are not finite")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def save_adapter(model: nn.Module, path: str | Path, **metadata: str) -> Path:
    """Write the trained tensors and what is needed to load them to one safetensors file.

    `metadata` is kept with them. The file appears whole or not at all; equal adapters give equal
    files, so that it names a backbone of the hub but no folder of this machine. Returns its path.
    Raises UserError naming a tensor with values that are not finite.
    """
    facts = adapter_facts(model)
    if "base_model" in facts and Path(facts["base_model"]).exists():
        del facts["base_model"]
    return write_adapter(adapter_state(model), {**facts, **metadata}, path)


def write_adapter(tensors: dict[str, Tensor], facts: dict[str, str], path: str | Path) -> Path:
    """Write tensors and `adapter_facts` as a file that `read_adapter` reads; returns its path."""
    return write_tensors(tensors, {**facts, "format": FORMAT}, path)


def adapter_facts(model: nn.Module) -> dict[str, str]:
    """What a file says of the model beside its tensors: adapter, backbone, task type."""
    facts = {}
    config = adapter_config(model)
    if config is not None:
        facts["adapter"] = json.dumps(asdict(config))
        facts["fan_in_fan_out"] = str(has_conv1d(model)).lower()
        if tied := tied_layers(model):
            facts["tied"] = ", ".join(tied)
    name = getattr(getattr(model, "config", None), "name_or_path", "")
    if name:
        facts["base_model"] = name
    for ending, task_type in TASK_TYPES.items():
        if type(model).__name__.endswith(ending):
            facts["task_type"] = task_type
    return facts


def read_adapter(
    path: str | Path, alpha: float | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and `adapter_facts` of a saved adapter, ours or from elsewhere (dylora.importers).

    `path` is a file of `save_adapter`, the folder of a run, a PEFT folder, or a state dict of
    loralib, which alone needs `alpha`. Raises UserError naming the file if it is none of these.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / ADAPTER).is_file():
            return read_peft(path, alpha)
        path = path / ADAPTER
    tensors, facts = read_tensors(path)
    kind = facts.get("format", "")
    if kind != FORMAT and not kind.startswith("dylora-"):
        return read_loralib(tensors, path, alpha)
    if kind != FORMAT:
        raise UserError(f"{path} has the format {kind}, this version reads {FORMAT}: update dylora")
    if alpha is not None:
        raise UserError(f"{path} says its own alpha: leave alpha= out (dylora run: init_alpha)")
    check_tensors(path)
    facts.pop(CHECKSUM, None)
    return tensors, facts


def load_adapter(
    model: ModelT, path: str | Path, rank: int | None = None, alpha: float | None = None
) -> ModelT:
    """Put a saved adapter into `model`, in place, and use it at `rank` (None: its max_rank).

    `path` and `alpha` are those of `read_adapter`: an adapter from PEFT or loralib becomes one of
    method "lora" that gives the same outputs. A bare model is adapted first, as the file says; an
    adapted one must fit the file (`warm_start` asks less). Raises UserError naming the file when it
    does not fit or has no such rank.
    """
    tensors, facts = read_adapter(path, alpha)
    if "adapter" not in facts:
        raise UserError(f"{path} holds fully trained weights, no low-rank adapter")
    config = AdapterConfig(**json.loads(facts["adapter"]))
    rank = config.max_rank if rank is None else checked_rank(rank, config.max_rank, str(path))
    own = adapter_config(model)
    if own is None:
        try:
            adapt(model, **asdict(config))
        except UserError as error:
            raise UserError(f"{path} does not fit this model: {error}") from error
    elif (own.method, own.max_rank, own.alpha) != (config.method, config.max_rank, config.alpha):
        raise UserError(
            f"{path} has method={config.method}, max_rank={config.max_rank}, alpha={config.alpha}; "
            f"the model's adapter has {own.method}, {own.max_rank}, {own.alpha}. "
            "dylora.warm_start starts one adapter from another"
        )
    load_adapter_state(model, tensors, str(path))
    set_rank(model, rank)
    return model
