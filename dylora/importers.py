"""Adapters from elsewhere, read as this project's own: PEFT's LoRA folders and loralib's files.

A LoRA adds (alpha/r) B A to a layer's weight; PEFT's rsLoRA adds (alpha/sqrt(r)) B A, which is the
same with alpha times sqrt(r). What is read becomes an adapter of method "lora" (a nested one says
another in its folder) with one max_rank, the largest r of its layers, and one alpha, that layer's.
A layer of a smaller r gets components that add nothing yet (B zero); where its own scaling is not
alpha/max_rank, the ratio of the two is multiplied into its B. So every delta at max_rank is the
source's.

No file can run code: tensors come from safetensors or from `torch.load(weights_only=True)`.
"""

import json
import math
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dylora.errors import UserError
from dylora.files import NESTING
from dylora.heads import head_module

PEFT_PREFIX = "base_model.model."
# Options of PEFT's LoraConfig that make the delta something else than (alpha/r) B A.
NOT_PLAIN = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
# Values of init_lora_weights that leave the backbone's weights as they are; PiSSA's do not.
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
# Parts of a loralib MergedLinear by their number; two are q and v, as in LoRA's own GPT-2.
MERGED_PARTS = {2: ("q", "v"), 3: ("q", "k", "v")}

Adapter = tuple[dict[str, Tensor], dict[str, str]]  # tensors and metadata, as in our own files


@dataclass(frozen=True)
class PlainLora:
    """One layer's LoRA: the delta is (alpha / r) * B @ A, with A (r, in) and B (out, r)."""

    A: Tensor
    B: Tensor
    alpha: float


def read_tensors(path: Path) -> Adapter:
    """Tensors by name, and metadata, of a safetensors file or a file of `torch.save`.

    Raises UserError naming the file if it is missing, damaged, or a pickle of anything but tensors,
    which is not executed.
    """
    if not path.is_file():
        raise UserError(f"no adapter file {path}")
    if path.suffix != ".safetensors":
        return _unpickle(path), {}
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged: {error}") from error


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it calls for {found[1]}" if found else "it holds other things than tensors"
        raise UserError(
            f"{path} is refused: {what}, and reading such a pickle could run any code. Only "
            "tensors are read: save them with torch.save(lora.lora_state_dict(model), FILE)"
        ) from error
    except Exception as error:  # torch raises several types for a file that is cut off or damaged
        reason = re.split(r"\. |\n", str(error))[0] or type(error).__name__
        raise UserError(f"{path} cannot be read; is it damaged or cut off? ({reason})") from error
    if isinstance(content, Mapping):
        content = content.get("model_state_dict", content)  # as LoRA's GPT-2 code saves it
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        raise UserError(f"{path} is no adapter: it does not hold tensors by their names")
    return dict(content)


def read_loralib(tensors: Mapping[str, Tensor], path: Path, alpha: float | None) -> Adapter:
    """A state dict of loralib, `<module>.lora_A` and `.lora_B`, with a trained head if it has one.

    Such files do not say their alpha, so it has to be given. A fused MergedLinear has lora_A
    (parts * r, in) and lora_B (parts * out_of_a_part, r), applied part by part. Raises UserError
    naming the file, and the tensor, where there is something else.
    """
    if any(name.startswith(PEFT_PREFIX) for name in tensors):
        raise UserError(f"{path} belongs to a PEFT folder: name the folder, not this file of it")
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    pairs, others = _pairs(plain, str(path))
    if not pairs:
        raise UserError(
            f"{path} is no adapter: it has neither this project's mark nor loralib's tensors "
            "(<module>.lora_A and <module>.lora_B)"
        )
    if alpha is None:
        raise UserError(
            f"{path} does not say the alpha that it was trained with (lora_alpha), which its "
            "scaling alpha/r needs: give it with alpha=, such as alpha=16 (or init_alpha=16)"
        )
    if alpha <= 0:
        raise UserError(f"alpha={alpha}: must be above 0, such as alpha=16")
    adapted = {module.partition(".")[0] for module in pairs}
    for name in others:
        if name.partition(".")[0] in adapted:
            raise UserError(
                f"{path} holds {name} beside the LoRA; trained biases or backbone weights cannot "
                "be read, only lora_A, lora_B and a head"
            )
    layers: dict[str, PlainLora] = {}
    targets = []
    for module, (A, B) in pairs.items():
        parts = _merged_parts(A, B, module, str(path))
        targets.append(f"{module}:{','.join(parts)}" if parts else module)
        names = [f"{module}.{part}" for part in parts] or [module]
        rows, columns = A.chunk(len(names)), B.chunk(len(names))
        layers |= {n: PlainLora(a, b, alpha) for n, a, b in zip(names, rows, columns, strict=True)}
    head = sorted({name.partition(".")[0] for name in others})
    facts = {"fan_in_fan_out": str(len(layers) > len(targets)).lower()}
    return _as_ours(layers, others, targets, head, facts)


def _merged_parts(A: Tensor, B: Tensor, module: str, source: str) -> Sequence[str]:
    """The parts of a fused layer that a MergedLinear adapts; none for a plain one."""
    count, rest = divmod(A.shape[0], B.shape[1])
    if rest or (count > 1 and (count not in MERGED_PARTS or B.shape[0] % count)):
        raise UserError(_misfit(A, B, module, source))
    return MERGED_PARTS.get(count, ())


def read_peft(folder: Path, alpha: float | None) -> Adapter:
    """PEFT's folder of a plain LoRA: adapter_config.json and adapter_model.safetensors (or .bin).

    The folder says its alpha, so `alpha` must be None. Raises UserError naming the file and what in
    it is not a plain LoRA with, perhaps, modules trained in full (`modules_to_save`).
    """
    file = folder / "adapter_config.json"
    config = _peft_config(file)
    if alpha is not None:
        raise UserError(f"{folder} says its own alpha ({config['lora_alpha']}): leave alpha= out")
    weights = folder / "adapter_model.safetensors"
    weights = weights if weights.is_file() else weights.with_suffix(".bin")
    ours = {
        re.sub(r"\.lora_([AB])\.weight$", r".lora_\1", name.removeprefix(PEFT_PREFIX)): tensor
        for name, tensor in read_tensors(weights)[0].items()
    }
    pairs, others = _pairs(ours, str(weights))
    if not pairs:
        raise UserError(f"{weights} has no LoRA matrices")
    whole = list(config.get("modules_to_save") or [])
    for name in others:
        if head_module(whole, name) is None:
            raise UserError(
                f"{weights} holds {name}, which is neither lora_A or lora_B of a linear layer nor "
                "in modules_to_save: this is no plain LoRA, and no other can be read"
            )
    layers = {m: _peft_layer(config, m, A, B, str(weights)) for m, (A, B) in pairs.items()}
    facts = {"fan_in_fan_out": str(bool(config.get("fan_in_fan_out"))).lower()}
    for ours_name, theirs in (("base_model", "base_model_name_or_path"), ("task_type",) * 2):
        if config.get(theirs):
            facts[ours_name] = str(config[theirs])
    settings = {"dropout": float(config.get("lora_dropout") or 0.0), **read_nesting(folder)}
    return _as_ours(layers, others, list(layers), whole if others else [], facts, settings)


def read_nesting(folder: Path) -> dict[str, Any]:
    """How the adapter of a PEFT folder was nested, `method` and `frozen`; empty if it was not."""
    file = folder / NESTING
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {"method": str(found["method"]), "frozen": bool(found["frozen"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error


def _peft_config(file: Path) -> dict[str, Any]:
    """The settings of a plain LoRA; UserError for another kind of adapter."""
    if not file.is_file():
        raise UserError(
            f"{file.parent} is no adapter: it has neither adapter.safetensors (a run of this "
            "project) nor adapter_config.json (PEFT)"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind = config.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if kind != "LORA":
        raise UserError(f"{file}: this is an adapter of type {kind}; only LORA can be read")
    for option in NOT_PLAIN:
        if config.get(option):
            raise UserError(f"{file} sets {option}; only a plain LoRA can be read")
    if config.get("bias", "none") != "none":
        raise UserError(f"{file} sets bias={config['bias']}; trained biases cannot be read")
    start = config.get("init_lora_weights")
    if start not in PLAIN_STARTS:
        raise UserError(
            f"{file}: init_lora_weights={start} changes the backbone's weights too; save it as a "
            "plain LoRA with PEFT's path_initial_model_for_weight_conversion"
        )
    for option in ("r", "lora_alpha"):
        if not isinstance(config.get(option), int | float) or config[option] <= 0:
            raise UserError(f"{file}: {option} is {config.get(option)!r}, no number above 0")
    return config


def _peft_layer(
    config: Mapping[str, Any], module: str, A: Tensor, B: Tensor, source: str
) -> PlainLora:
    r = _by_pattern(config, "rank_pattern", "r", module)
    if not A.shape[0] == B.shape[1] == r:
        raise UserError(f"{_misfit(A, B, module, source)} of rank {r}, as adapter_config.json says")
    alpha = float(_by_pattern(config, "alpha_pattern", "lora_alpha", module))
    return PlainLora(A, B, alpha * math.sqrt(r) if config.get("use_rslora") else alpha)


def _by_pattern(config: Mapping[str, Any], patterns: str, default: str, module: str) -> Any:
    """What the first pattern that fits the end of a module's name gives, as in PEFT."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return config[default]


def _pairs(
    tensors: Mapping[str, Tensor], source: str
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """(A, B) in float32 by the module's name, and all other tensors; UserError for half a pair."""
    pairs = {}
    others = dict(tensors)
    for name in tensors:
        module, _, kind = name.rpartition(".")
        if kind not in ("lora_A", "lora_B"):
            continue
        A, B = (tensors.get(f"{module}.{kind}") for kind in ("lora_A", "lora_B"))
        if A is None or B is None:
            raise UserError(f"{source} has only one of lora_A and lora_B of {module}")
        if A.dim() != 2 or B.dim() != 2 or 0 in (*A.shape, *B.shape):
            raise UserError(_misfit(A, B, module, source))
        if not (A.isfinite().all() and B.isfinite().all()):
            raise UserError(f"{source}: {module} has values that are not finite")
        pairs[module] = (A.float(), B.float())
        del others[name]
    return pairs, others


def _misfit(A: Tensor, B: Tensor, module: str, source: str) -> str:
    return (
        f"{source}: lora_A {tuple(A.shape)} and lora_B {tuple(B.shape)} of {module} are no LoRA of "
        "a linear layer"
    )


def _as_ours(
    layers: Mapping[str, PlainLora],
    others: Mapping[str, Tensor],
    targets: list[str],
    head: list[str],
    facts: dict[str, str],
    settings: Mapping[str, Any] | None = None,
) -> Adapter:
    """Layers of any ranks and scalings as one adapter; see the head of this module."""
    largest = max(layers.values(), key=lambda layer: layer.A.shape[0])
    max_rank, alpha = largest.A.shape[0], largest.alpha
    generator = torch.Generator().manual_seed(0)  # reading a file twice gives the same
    tensors = dict(others)
    for name, layer in layers.items():
        rank = layer.A.shape[0]
        A, lacking = layer.A, max_rank - rank
        if lacking:  # rows like a new adapter's; with A zero too they could never learn
            rows = torch.empty(lacking, A.shape[1])
            nn.init.kaiming_uniform_(rows, a=math.sqrt(5), generator=generator)
            A = torch.cat([A, rows])
        ratio = (layer.alpha / rank) / (alpha / max_rank)
        tensors[f"{name}.lora_A"] = A
        tensors[f"{name}.lora_B"] = F.pad(layer.B * ratio, (0, lacking))
    config = {
        "target_modules": targets,
        "max_rank": max_rank,
        "alpha": alpha,
        "method": "lora",
        "head": head,
        **(settings or {}),
    }
    return tensors, {"adapter": json.dumps(config), **facts}
