"""One training step of the same frozen encoder by this library and by others.

All have rank 8 on queries and values, the same batch, bf16 autocast, clipping and AdamW.
"""

import logging
import random
from collections.abc import Callable, Iterable
from importlib import import_module
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import dylora

RANK, ALPHA = 8, 16
TARGETS = ("query", "value")
SIZES = {  # of the hidden layers: those of all-MiniLM-L6-v2 and of RoBERTa-base
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072},
}
Batch = dict[str, Tensor]
Step = Callable[[], None]


def backbone(size: str, attention: str = "eager") -> nn.Module:
    """A randomly initialized encoder: weights do not change times. No dropout, as with MiniLM."""
    torch.manual_seed(0)
    plain = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig.from_dict({**SIZES[size], **plain}))
    model.set_attn_implementation(attention)
    return model


def batch_of(examples: int, length: int, padded: int | None = None, device: str = "cpu") -> Batch:
    """Random tokens; with `padded`, padding up to that length."""
    width = padded or length
    mask = torch.zeros(examples, width, dtype=torch.long)
    mask[:, :length] = 1
    ids = torch.randint(5, 30000, (examples, width)) * mask
    labels = torch.arange(examples) % 2
    made = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in made.items()}


def train_step(model: nn.Module, batch: Batch, rank: Callable[[], Any] | None = None) -> Step:
    """A step of `model` on `batch`, at the rank that is drawn for it."""
    device = batch["input_ids"].device.type
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device == "cuda")

    def step() -> None:
        if rank is not None:
            dylora.set_rank(model, rank())
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(model: nn.Module, method: str = "dylora", rank: int = RANK, **options: Any) -> nn.Module:
    return dylora.adapt(model, list(TARGETS), max_rank=rank, alpha=ALPHA, method=method, **options)


def frozen(model: nn.Module) -> nn.Module:
    """No adapter, but the gradient passes through all layers, as with any: the floor."""
    model.requires_grad_(False)
    model.get_submodule("classifier").requires_grad_(True)
    model.get_submodule("bert.embeddings.LayerNorm").requires_grad_(True)
    return model


def peft(model: nn.Module) -> nn.Module:
    library: Any = import_module("peft")
    config = library.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), modules_to_save=["classifier"]
    )
    return library.get_peft_model(model, config)


def loralib(model: nn.Module) -> nn.Module:
    library: Any = import_module("loralib")
    for name, layer in list(model.named_modules()):
        if name.endswith(TARGETS):
            sizes = (layer.in_features, layer.out_features)
            made = library.Linear(*sizes, r=RANK, lora_alpha=ALPHA, merge_weights=False)
            made.weight, made.bias = layer.weight, layer.bias
            model.set_submodule(name, made)
    library.mark_only_lora_as_trainable(model)
    model.get_submodule("classifier").requires_grad_(True)
    return model


def lycoris(model: nn.Module) -> nn.Module:
    """LyCORIS's DyLoRA: a rank for each layer and step, only the last row of which learns."""
    library: Any = import_module("lycoris")
    model.requires_grad_(False)
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    names = [f".*{name}" for name in TARGETS]
    library.LycorisNetwork.apply_preset({"target_module": [], "target_name": names})
    options = {"linear_dim": RANK, "linear_alpha": ALPHA, "algo": "dylora", "block_size": 1}
    network = library.create_lycoris(model, 1.0, **options)
    network.apply_to()
    network.requires_grad_(True)
    model.add_module("network", network)
    model.get_submodule("classifier").requires_grad_(True)
    return model


def steps(size: str, batch: Batch) -> tuple[dict[str, Step], dict[str, str]]:
    """A step of each, and why others are left out."""
    draw = random.Random(0)

    def rank() -> int:
        return draw.randint(1, RANK)

    sandwich = dylora.RankSampler(RANK, distribution="sandwich")
    mixed = (sandwich.per_sample(step, len(batch["labels"])) for step in count())
    attention = "sdpa" if batch["input_ids"].is_cuda else "eager"
    found = {
        "frozen floor": train_step(frozen(backbone(size, attention)), batch),
        "dylora": train_step(ours(backbone(size, attention)), batch, rank),
        "dylora, frozen=True": train_step(
            ours(backbone(size, attention), frozen=True), batch, rank
        ),
        "dylora_sandwich": train_step(
            ours(backbone(size, attention), "dylora_sandwich"), batch, lambda: next(mixed)
        ),
        "lora": train_step(ours(backbone(size, attention), "lora"), batch),
        "matryoshka (ours)": train_step(ours(backbone(size, attention), "matryoshka"), batch),
    }
    skipped = {"MatryoshkaLoRA's own layer": "it is in no package index"}
    others: Iterable[Callable[[nn.Module], nn.Module]] = (peft, loralib, lycoris)
    for build in others:
        try:
            found[build.__name__] = train_step(build(backbone(size, attention)), batch)
        except ModuleNotFoundError as error:
            skipped[build.__name__] = f"{error}: pip install 'dylora[bench]'"
    return found, skipped
