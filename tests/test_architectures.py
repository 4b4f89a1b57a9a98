"""Every architecture of a table: adapted by default, trained, used at every rank, sent to PEFT."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFTS
from tiny import VOCABULARY, inputs, randomize
from torch import nn

import dylora
from dylora.adapted import low_rank_parts
from dylora.adapter import adapter_config
from dylora.errors import UserError

MAX_RANK = 3
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4}
USUAL = {**SIZES, **HEADS, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = {**USUAL, "num_key_value_heads": 2}
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BART = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
        (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
# The configuration of a tiny model, what is made of it, and the layers that are adapted by default.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], str, list[str]]] = {
    "BERT": ("Bert", USUAL, "SequenceClassification", ["query", "value"]),
    "DistilBERT": (
        "DistilBert",
        {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        "SequenceClassification",
        ["q_lin", "v_lin"],
    ),
    "DeBERTa-v2": (
        "DebertaV2",
        {**USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        "SequenceClassification",
        ["query_proj", "value_proj"],
    ),
    "RoBERTa": ("Roberta", USUAL, "SequenceClassification", ["query", "value"]),
    "ModernBERT": (
        "ModernBert",
        {**USUAL, **MARKS, "cls_token_id": 1, "sep_token_id": 2},
        "SequenceClassification",
        ["Wqkv", "Wo", "Wi", "dense"],  # no names that are known: all linear layers
    ),
    "GPT-2": (
        "GPT2",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, **MARKS},
        "LMHeadModel",
        ["c_attn:q,v"],
    ),
    "GPT-NeoX": ("GPTNeoX", USUAL, "CausalLM", ["query_key_value"]),
    "OPT": (
        "OPT",
        {**SIZES, **HEADS, "ffn_dim": 48, "word_embed_proj_dim": 32},
        "CausalLM",
        ["q_proj", "v_proj"],
    ),
    "Llama": ("Llama", USUAL, "CausalLM", ["q_proj", "v_proj"]),
    "Mistral": ("Mistral", GROUPED, "CausalLM", ["q_proj", "v_proj"]),
    "Qwen2": ("Qwen2", GROUPED, "CausalLM", ["q_proj", "v_proj"]),
    "Qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}, "CausalLM", ["q_proj", "v_proj"]),
    "Gemma": ("Gemma", {**GROUPED, "head_dim": 8}, "CausalLM", ["q_proj", "v_proj"]),
    "Phi": ("Phi", USUAL, "CausalLM", ["q_proj", "v_proj"]),
    "Falcon": ("Falcon", {**SIZES, **HEADS}, "CausalLM", ["query_key_value"]),
    "BLOOM": (
        "Bloom",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        "CausalLM",
        ["query_key_value"],
    ),
    "T5": (
        "T5",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
        | {"num_heads": 4, "decoder_start_token_id": 0},
        "ConditionalGeneration",
        ["q", "v"],
    ),
    "BART": (
        "Bart",
        {"vocab_size": VOCABULARY, "d_model": 32, **BART, "max_position_embeddings": 64, **MARKS},
        "ConditionalGeneration",
        ["q_proj", "v_proj"],
    ),
    "ViT": (
        "ViT",
        {**SIZES, **HEADS, "intermediate_size": 48, "image_size": 16, "patch_size": 8},
        "ImageClassification",
        ["q_proj", "v_proj"],
    ),
}
OTHER_THAN_PEFT = {
    "GPT-2": "the query and value parts of c_attn, as LoRA's authors, not all of it",
    "Phi": "query and value as elsewhere; PEFT takes fc1 and fc2 as well",
}


def backbone(name: str) -> Any:
    family, sizes, task, _ = ARCHITECTURES[name]
    ending = task if task == "LMHeadModel" else f"For{task}"
    torch.manual_seed(0)
    return getattr(hf, family + ending)(getattr(hf, family + "Config")(**sizes)).eval()


def batch_for(model: nn.Module) -> dict[str, torch.Tensor]:
    kind = type(model).__name__
    classes = torch.tensor([0, 1])
    if kind.endswith("ImageClassification"):
        return {"pixel_values": torch.randn(2, 3, 16, 16), "labels": classes}
    tokens = inputs(2, 7)
    labels = classes if kind.endswith("SequenceClassification") else tokens
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


@pytest.mark.filterwarnings("ignore:.*:UserWarning:peft")  # no base model on the hub
@pytest.mark.parametrize("targets", [None, "all-linear"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_trains_and_serves_every_rank_and_peft_gets_its_logits(
    name: str, targets: str | None, tmp_path: Path
) -> None:
    bare = backbone(name)
    model = dylora.adapt(copy.deepcopy(bare), targets, max_rank=MAX_RANK)
    batch = batch_for(model)
    randomize(model)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    with dylora.at_rank(model, 2):
        before = model(**batch).loss
        before.backward()
    for layer, part in low_rank_parts(model).items():
        assert part.lora_B.grad is not None and part.lora_B.grad[:, :2].any(), f"{layer} unused"
        assert not part.lora_B.grad[:, 2:].any()
    optimizer.step()
    found = []
    with torch.no_grad():
        for rank in range(1, MAX_RANK + 1):
            with dylora.at_rank(model, rank):
                logits = model(**batch).logits
            folder = dylora.export_peft(model, tmp_path / f"r{rank}", rank)
            plain = peft.PeftModel.from_pretrained(copy.deepcopy(bare), folder).eval()
            torch.testing.assert_close(plain(**batch).logits, logits, rtol=1e-4, atol=1e-4)
            found.append(logits)
    assert not torch.allclose(found[0], found[-1], atol=1e-4), "else a wrong rank goes unnoticed"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_without_names_the_layers_are_those_of_the_table_and_of_peft(name: str) -> None:
    model = dylora.adapt(backbone(name))
    config, expected = adapter_config(model), ARCHITECTURES[name][3]
    assert config is not None
    ends = list(dict.fromkeys(target.rpartition(".")[2] for target in config.target_modules))
    assert ends == expected
    pefts = PEFTS.get(model.config.model_type)
    assert name in OTHER_THAN_PEFT or pefts in (None, expected)


def test_all_linear_leaves_out_the_head_and_the_output_embedding() -> None:
    for name in ("BERT", "GPT-2", "T5"):
        model = dylora.adapt(backbone(name), "all-linear")
        layers = dylora.adapter_layers(model)
        assert not [layer for layer in layers if "classifier" in layer or "lm_head" in layer]
        theirs = peft.get_peft_model(
            backbone(name),
            peft.LoraConfig(target_modules="all-linear", fan_in_fan_out=name == "GPT-2"),
        )
        count = sum("lora_A" in key for key in theirs.state_dict())
        assert len(layers) == count - (name == "BERT")  # without a task PEFT takes its classifier


def test_a_layer_that_is_never_called_is_refused_and_the_model_stays_as_it_was() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(UserError, match="MultiheadAttention, which reads its weight and never"):
        dylora.adapt(model, ["linear1", "out_proj"])
    assert not list(low_rank_parts(model))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert list(dylora.adapter_layers(dylora.adapt(model, "all-linear"))) == ["linear1", "linear2"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["query", "nonsense"], "'nonsense' matches no linear layer"),
        (["query", "self.query"], "twice, the second time as 'self.query'"),
        ("query", "give a list"),
        ([], "is empty"),
    ],
)
def test_wrong_names_change_nothing(targets: Any, message: str) -> None:
    model = backbone("BERT")
    with pytest.raises(UserError, match=message):
        dylora.adapt(model, targets)
    assert not list(low_rank_parts(model))
    assert all(parameter.requires_grad for parameter in model.parameters())
