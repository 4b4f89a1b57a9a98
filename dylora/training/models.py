"""Backbones and tokenizers: from a local folder, an installed package, or the hub."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dylora.errors import UserError
from dylora.heads import HEADS, head_module
from dylora.suite.config import Dtype, Kind, ModelConfig, PathsConfig, TaskConfig
from dylora.suite.hub import local_model, offline, patience, why_unreachable


def locate(model: ModelConfig, paths: PathsConfig) -> str:
    """Where the weights are: a folder if there is one on this machine, else the hub id.

    Toy models are pretrained here; the others are where `local_model` finds them.
    """
    if model.toy:
        from dylora.pretraining.pretrain import (
            toy_model,  # only toy models need the pre-training code
        )

        return str(toy_model(model.name, Path(paths.cache)))
    return str(local_model(model, paths) or model.name_or_path)


def load_backbone(
    model: ModelConfig, task: TaskConfig, paths: PathsConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, stored as `model.dtype` says, with the head that the task needs; its tokenizer.

    Seed torch before: a new head is drawn from its generator. Raises UserError, saying which option
    to set, when the model is nowhere to be had.
    """
    source = locate(model, paths)
    on_hub = not Path(source).is_dir()
    reason = why_unreachable(source, "model") if on_hub else None
    remedy = (
        f"Put its files in {Path(paths.models) / Path(model.name_or_path).name}, or set "
        "paths.models= or model.name_or_path= to a folder that has them"
    )
    waiting = patience(f"model {source}", remedy) if on_hub and reason is None else offline()
    options = {
        "revision": model.revision,
        "local_files_only": reason is not None,
        "trust_remote_code": False,  # without it transformers asks on a terminal
    }
    loader: type[AutoModelForCausalLM | AutoModelForSequenceClassification] = AutoModelForCausalLM
    head = {}
    if task.kind != Kind.generation:
        loader = AutoModelForSequenceClassification
        head["num_labels"] = len(task.labels) if task.kind == Kind.classification else 1
    try:
        with waiting:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            backbone = loader.from_pretrained(source, **_storage(model), **options, **head)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"model {model.name_or_path} could not be loaded from {source} "
            f"({reason or str(error).partition(chr(10))[0]})\n{remedy}. "
            "`dylora run` without arguments needs neither files nor network."
        ) from error
    backbone.config.name_or_path = model.name_or_path  # for adapters, wherever it was found
    for module in backbone.modules():
        if model.dropout is not None and isinstance(module, nn.Dropout):
            module.p = model.dropout  # attention reads it from its module too
        # On some CPUs bitsandbytes packs 4-bit weights at the first evaluation, for speed, in a way
        # that no gradient passes any more; training would end there.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    positions = getattr(backbone.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return backbone, tokenizer


def _storage(model: ModelConfig) -> dict[str, Any]:
    """How `from_pretrained` is to store the weights; heads are never quantized."""
    if model.dtype in (Dtype.fp32, Dtype.bf16):
        return {"dtype": torch.bfloat16 if model.dtype == Dtype.bf16 else torch.float32}
    quantized = BitsAndBytesConfig(
        load_in_8bit=model.dtype == Dtype.int8,
        load_in_4bit=model.dtype == Dtype.nf4,
        llm_int8_skip_modules=[*model.head, *HEADS, "lm_head"],
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
    )
    return {"dtype": torch.float32, "quantization_config": quantized}


@torch.no_grad()
def start_bias(model: nn.Module, head: Sequence[str], labels: Sequence[float]) -> None:
    """Set the bias of a regression's output to the mean of `labels`.

    AdamW moves a bias by at most the learning rate in a step: from 0 to a mean of 2.7 at 1e-3 that
    is thousands of steps, in which the adapter learns to shift the mean instead of the order.
    Raises UserError if no module of `head` ends in one output with a bias.
    """
    outputs = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and head_module(head, name)
    ]
    if len(outputs) != 1 or outputs[0].bias is None:
        raise UserError(f"train.bias_from_labels: the head ({', '.join(head)}) has no one output")
    outputs[0].bias.fill_(statistics.fmean(labels))
