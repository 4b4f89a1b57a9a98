"""What `from_pretrained` initializes anew is trained, saved and exported, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from tiny import VOCABULARY, inputs, randomize
from transformers import PreTrainedModel

import dylora
from dylora.adapter import adapter_state
from dylora.heads import freeze_all_but

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DISTILBERT = {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48}
BART = {"vocab_size": VOCABULARY, "d_model": 32, "num_labels": 2} | {
    f"{side}_{option}": value
    for side in ("encoder", "decoder")
    for option, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 48))
}
XLNET = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 48}

# family, the class in the checkpoint, the class that is adapted, sizes, targets, what is new
CASES = {
    "DistilBERT": (
        "DistilBert", "Model", "ForSequenceClassification", DISTILBERT, ["q_lin", "v_lin"],
        {"pre_classifier", "classifier"},
    ),
    "BART": (
        "Bart", "Model", "ForSequenceClassification", BART, ["q_proj", "v_proj"],
        {"classification_head"},
    ),
    "BERT, questions": (
        "Bert", "ForMaskedLM", "ForQuestionAnswering", SIZES, ["query", "value"], {"qa_outputs"},
    ),
    "DeBERTa": (
        "DebertaV2", "Model", "ForSequenceClassification", SIZES, ["query_proj", "value_proj"],
        {"pooler.dense", "classifier"},
    ),
    "XLNet": (
        "XLNet", "Model", "ForSequenceClassification", XLNET, ["layer_1"],
        {"sequence_summary.summary", "logits_proj"},
    ),
    "RoBERTa": (
        "Roberta", "ForMaskedLM", "ForSequenceClassification", SIZES, ["query"], {"classifier"},
    ),
}  # fmt: skip


def sentences() -> torch.Tensor:
    x = inputs()
    x[:, -1] = 2  # BART classifies at the end token, of which it wants the same number everywhere
    return x


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Callable[[], PreTrainedModel], list[str], set[str]]:
    """Loads the model with its new head, drawn anew each time; targets; what is new."""
    family, stored, used, sizes, targets, new = CASES[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    getattr(transformers, family + stored)(config).save_pretrained(tmp_path / "checkpoint")
    adapted = getattr(transformers, family + used)
    return lambda: adapted.from_pretrained(tmp_path / "checkpoint").eval(), targets, new


def test_a_new_head_is_trained_and_saved(case: Any, tmp_path: Path) -> None:
    load, targets, new = case
    model = dylora.adapt(load(), targets, max_rank=4)
    randomize(model)
    trained = {name for name in adapter_state(model) if ".lora_" not in name}
    assert all(any(name.startswith(part + ".") for part in new) for name in trained)
    assert all(any(name.startswith(part + ".") for name in trained) for part in new)
    path = dylora.save_adapter(model, tmp_path / "a.safetensors")
    x = sentences()
    again = dylora.load_adapter(load(), path)  # whose own head is another random one
    assert torch.equal(again(x)[0], model(x)[0])


def test_peft_loads_the_export_with_equal_logits(case: Any, tmp_path: Path) -> None:
    load, targets, _ = case
    model = dylora.adapt(load(), targets, max_rank=4)
    randomize(model)
    x = sentences()
    for rank in (1, 4):
        exported = dylora.export_peft(model, tmp_path / f"r{rank}", rank=rank)
        theirs = peft.PeftModel.from_pretrained(load(), exported).eval()
        with dylora.at_rank(model, rank):
            torch.testing.assert_close(theirs(x)[0], model(x)[0], rtol=1e-4, atol=1e-5)
        back = dylora.load_adapter(load(), exported)
        torch.testing.assert_close(back(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-5)


def test_a_warm_start_keeps_the_whole_new_head(case: Any, tmp_path: Path) -> None:
    load, targets, _ = case
    path = dylora.save_adapter(
        dylora.adapt(load(), targets, max_rank=4), tmp_path / "a.safetensors"
    )
    model = dylora.adapt(load(), targets, max_rank=4)
    before = {name: tensor.clone() for name, tensor in adapter_state(model).items()}
    dylora.warm_start(model, path)
    for name, tensor in adapter_state(model).items():
        if not name.endswith("lora_B"):  # zero in both
            assert torch.equal(tensor, before[name]) == (".lora_" not in name), name


def bert_without_pooler(folder: Path) -> PreTrainedModel:
    config = transformers.BertConfig(**SIZES)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return transformers.BertForSequenceClassification.from_pretrained(folder)


def test_a_new_part_of_the_backbone_is_refused_until_it_is_named(tmp_path: Path) -> None:
    model = bert_without_pooler(tmp_path)
    with pytest.raises(dylora.UserError, match=r'bert\.pooler\.dense is new.*Add "bert\.pooler'):
        dylora.adapt(model, ["query"])
    dylora.adapt(model, ["query"], head=["classifier", "pooler"])
    assert "bert.pooler.dense.weight" in adapter_state(model)


def test_training_the_head_alone_follows_the_same_rule(tmp_path: Path) -> None:
    with pytest.raises(dylora.UserError, match=r"bert\.pooler\.dense"):
        freeze_all_but(bert_without_pooler(tmp_path), ["classifier"])


def test_resized_embeddings_are_not_taken_for_a_head(tmp_path: Path) -> None:
    """A token added for padding needs no training, and must not train the whole vocabulary."""
    transformers.BertModel(transformers.BertConfig(**SIZES)).save_pretrained(tmp_path)
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    model.resize_token_embeddings(VOCABULARY + 1)
    dylora.adapt(model, ["query"])
    assert not any("embeddings" in name for name in adapter_state(model))
