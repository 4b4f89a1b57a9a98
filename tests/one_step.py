"""One optimizer step of a tiny model on a device, as the training loop takes it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from decoders import byte_tokenizer, decoder
from tiny import roberta
from torch import nn
from transformers import masking_utils

import dylora
from dylora.sampler import RankSampler
from dylora.suite.config import MethodConfig, TrainConfig
from dylora.training import causal, classification
from dylora.training.step import Objective, OptimizerStep


class OnMeta(Accelerator):
    """An accelerator for tensors without values."""

    device = torch.device("meta")


def take_steps(
    patch: pytest.MonkeyPatch, device: str, folder: Path, generates: bool, **method: Any
) -> None:
    """Two unwatched steps of two micro-batches; the first of all may fill caches on the device.

    transformers looks whether a batch has padding, in each forward pass: that is not of ours.
    """
    for name in ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"):
        patch.setattr(masking_utils, name, lambda *_: False)
    accelerator = Accelerator() if device == "cuda" else OnMeta(cpu=True)
    model = adapted(generates, **method).to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    config, made = TrainConfig(accumulation=2), MethodConfig("dylora", max_rank=4, **method)
    step = OptimizerStep(
        model,
        objective(generates),
        config,
        made,
        RankSampler(4, distribution=made.rank_distribution),
        accelerator,
        accelerator.prepare_optimizer(optimizer, device_placement=False),
        scheduler,
        folder,
    )
    for number in range(2):
        loss, rank = step([[0, 1, 2], [3, 4, 5]], number, watched=False)
        assert math.isnan(loss) and 1 <= rank <= 4
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")


def adapted(generates: bool, **method: Any) -> nn.Module:
    model = decoder().float() if generates else roberta()
    model.set_attn_implementation("sdpa")
    targets = ["c_attn:q,v"] if generates else ["query", "value"]
    return dylora.adapt(model, targets, max_rank=4, frozen=method.get("frozen", False))


def objective(generates: bool) -> Objective:
    tokenizer = byte_tokenizer()
    tokens = [[5 + i, *range(7, 9 + i)] for i in range(6)]
    if generates:
        examples = [{"input_ids": t, "prompt_length": 2, "length": len(t)} for t in tokens]
        return Objective(
            examples,
            lambda e: causal.collate(e, tokenizer),
            causal.loss,
            lambda *_: {},
            "perplexity",
        )
    tokenizer.pad_token = tokenizer.eos_token
    labeled = [
        {"input_ids": t, "attention_mask": [1] * len(t), "length": len(t), "label": i % 2}
        for i, t in enumerate(tokens)
    ]
    return Objective(
        labeled,
        lambda e: classification.collate(e, tokenizer),
        classification.loss,
        lambda *_: {},
        "accuracy",
    )
