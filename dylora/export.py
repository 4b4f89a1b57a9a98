"""Leave the suite: a trained adapter at one rank as a plain PEFT folder, or merged as a full model.

PEFT scales by lora_alpha / r. Truncating to rank b takes the first b rows of A and columns of B;
DyLoRA's alpha / b is then lora_alpha = alpha with r = b, and LoRA's alpha / max_rank, which a
truncation keeps, is lora_alpha = alpha * b / max_rank. GPT-2's fused c_attn with q and v adapted at
rank b is one LoRA of rank 2b: rows of A take turns (q1, v1, q2, v2, ...), B has q's columns in the
even and v's in the odd places and zeros elsewhere.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dylora.adapted import adapter_layers, merged, tied_layers
from dylora.adapter import AdapterConfig, adapter_facts, adapter_state, read_adapter
from dylora.errors import UserError
from dylora.files import write_text, writing
from dylora.heads import head_module
from dylora.importers import PEFT_PREFIX, PlainLora
from dylora.layers import FUSED_PARTS
from dylora.rank import check_layers, checked_rank
from dylora.tensors import write_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel  # which takes seconds to import


def export_peft(
    source: nn.Module | str | Path,
    folder: str | Path,
    rank: int | Mapping[str, int],
    **facts: str,
) -> Path:
    """Write the adapter of a model, or of a saved file, at `rank` as a PEFT folder; returns it.

    `rank` is one for all layers, or one for each layer by its module name. The folder has what
    `peft.PeftModel.from_pretrained` and transformers' `load_adapter` read: adapter_config.json and
    adapter_model.safetensors, a trained head included. `facts` win over what the source says of
    itself: `base_model` (hub id or folder of the backbone), its `revision`, PEFT's `task_type`.
    Raises UserError on a rank or a layer name that the adapter does not have, and on an adapted
    layer with a tied weight: PEFT would merge it into the embedding as well.
    """
    if isinstance(source, nn.Module):
        tensors, known = adapter_state(source), adapter_facts(source)
    else:
        tensors, known = read_adapter(source)
    facts = known | facts
    if "adapter" not in facts:
        raise UserError("only low-rank adapters can be exported; this one was trained in full")
    if "tied" in facts:
        raise UserError(
            f"{facts['tied']} shares its weight with the embedding, and PEFT would merge the "
            "adapter into both: use dylora.export_merged, or adapt a model that was loaded with "
            "tie_word_embeddings=False"
        )
    config = AdapterConfig(**json.loads(facts["adapter"]))
    layers = _plain_layers(tensors, config, rank)
    head = {name: tensor for name, tensor in tensors.items() if ".lora_" not in name}
    exported = {PEFT_PREFIX + name: tensor for name, tensor in head.items()}
    for name, lora in layers.items():
        exported[f"{PEFT_PREFIX}{name}.lora_A.weight"] = lora.A
        exported[f"{PEFT_PREFIX}{name}.lora_B.weight"] = lora.B
    folder = Path(folder)
    plain = {name: tensor.detach().cpu() for name, tensor in exported.items()}
    write_tensors(plain, {"format": "pt"}, folder / "adapter_model.safetensors")
    text = json.dumps(_peft_config(layers, config, facts, head), indent=2)
    write_text(folder / "adapter_config.json", text + "\n")
    return folder


def export_merged(
    model: "PreTrainedModel", folder: str | Path, rank: int | Mapping[str, int]
) -> Path:
    """Write `model` with the deltas of `rank` in its weights as a transformers folder; returns it.

    `AutoModel*.from_pretrained` reads it without PEFT or this package. The tokenizer is not part of
    a model: save it beside. `model` is left as it was. An adapted layer with a tied weight is saved
    untied. Raises UserError if there is no adapter, or not this rank, or no room for the model.
    """
    layers = adapter_layers(model)
    if not layers:
        raise UserError("this model has no low-rank adapter to merge; adapt it or load one")
    whole = getattr(model, "get_base_model", lambda: model)()  # of a model of PEFT
    bare = {name: layer.base for name, layer in layers.items()} | _trained_whole(whole)
    adapted = {name: whole.get_submodule(name) for name in bare}
    ties = whole.config.tie_word_embeddings
    unties = bool(tied_layers(model))
    with merged(model, rank), writing(Path(folder)):
        try:
            whole.config.tie_word_embeddings = ties and not unties
            for name, layer in bare.items():
                whole.set_submodule(name, layer)
            whole.save_pretrained(folder)
        finally:
            whole.config.tie_word_embeddings = ties
            for name, layer in adapted.items():
                whole.set_submodule(name, layer)
    return Path(folder)


def _trained_whole(model: nn.Module) -> dict[str, nn.Module]:
    """The trained copies that PEFT keeps of modules_to_save, by the module's own name."""
    return {
        name: module.modules_to_save[module.active_adapters[0]]
        for name, module in model.named_modules()
        if isinstance(getattr(module, "modules_to_save", None), nn.ModuleDict)
    }


def _plain_layers(
    tensors: Mapping[str, Tensor], config: AdapterConfig, rank: int | Mapping[str, int]
) -> dict[str, PlainLora]:
    """The truncated LoRA of every adapted module, by the module's name."""
    names = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    modules: dict[str, list[str]] = {}  # module -> parts of it, or itself
    for name in names:
        module, _, part = name.rpartition(".")
        is_part = part in FUSED_PARTS and any(":" in target for target in config.target_modules)
        modules.setdefault(module if is_part else name, []).append(name)
    if isinstance(rank, Mapping):
        check_layers(rank, modules)
    layers = {}
    for module, parts in modules.items():
        wanted = rank[module] if isinstance(rank, Mapping) else rank
        b = checked_rank(wanted, config.max_rank)
        pieces = {name: _truncate(tensors, name, b, config) for name in parts}
        layers[module] = pieces[module] if module in pieces else _fuse(pieces, module)
    return layers


def _truncate(tensors: Mapping[str, Tensor], name: str, b: int, config: AdapterConfig) -> PlainLora:
    """A[:b] and B[:, :b], with the alpha that gives PEFT's alpha / r the scaling in use."""
    weights = config.weights(b)
    A, B = tensors[f"{name}.lora_A"][:b], tensors[f"{name}.lora_B"][:, :b]
    if len(set(weights)) > 1:  # PEFT has one scaling for all components
        return PlainLora(A, B * B.new_tensor(weights), float(b))
    return PlainLora(A, B, weights[0] * b)


def _fuse(pieces: Mapping[str, PlainLora], module: str) -> PlainLora:
    """Several parts of a fused layer as one LoRA, its components taking turns."""
    count = len(pieces)
    first = next(iter(pieces.values()))
    b, width = first.A.shape[0], first.B.shape[0]
    A = torch.stack([piece.A for piece in pieces.values()], dim=1).flatten(0, 1)
    B = first.B.new_zeros(len(FUSED_PARTS) * width, count * b)
    for turn, (name, piece) in enumerate(pieces.items()):
        start = FUSED_PARTS.index(name.removeprefix(module + ".")) * width
        B[start : start + width, turn::count] = piece.B
    return PlainLora(A, B, first.alpha * count)


def _peft_config(
    layers: Mapping[str, PlainLora],
    config: AdapterConfig,
    facts: Mapping[str, str],
    head: Mapping[str, Tensor],
) -> dict[str, Any]:
    ranks = {name: lora.A.shape[0] for name, lora in layers.items()}
    alphas = {name: lora.alpha for name, lora in layers.items()}
    r, alpha = max(ranks.values()), alphas[max(ranks, key=lambda name: ranks[name])]
    head_modules = {name.rpartition(".")[0] for name in head}
    trained_whole = sorted({head_module(config.head, name) or name for name in head_modules})
    return {
        "peft_type": "LORA",
        "task_type": facts.get("task_type"),
        "base_model_name_or_path": facts.get("base_model"),
        "revision": facts.get("revision"),
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {_exactly(n): v for n, v in ranks.items() if v != r},
        "alpha_pattern": {_exactly(n): v for n, v in alphas.items() if v != alpha},
        "target_modules": _targets(layers, config, head_modules),
        "modules_to_save": trained_whole or None,
        "fan_in_fan_out": facts.get("fan_in_fan_out") == "true",
        "lora_dropout": config.dropout,
        "bias": "none",
        "inference_mode": True,
    }


def _targets(
    layers: Mapping[str, PlainLora], config: AdapterConfig, head_modules: set[str]
) -> list[str]:
    """The short names as configured; all names in full where a short one also fits the head."""
    short = [target.partition(":")[0] for target in config.target_modules]
    if any(module.endswith("." + name) for module in head_modules for name in short):
        return sorted(layers)
    return short


def _exactly(name: str) -> str:
    return "^" + re.escape(name)
