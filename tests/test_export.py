"""Exported folders in PEFT and transformers themselves: equal logits at every rank."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tiny import gpt2, inputs, llama, randomize, roberta
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

import dylora
from dylora.adapted import adapter_layers
from dylora.methods import METHODS, Method


def bert(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    return BertForSequenceClassification(config).eval()


MODELS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "roberta": (roberta, ["query", "value"]),
    "roberta-dense": (roberta, ["dense", "query"]),  # "dense" is a name in the head as well
    "bert": (bert, ["query", "value"]),
    "gpt2-fused": (gpt2, ["c_attn:q,v"]),
    "gpt2-fused-v": (gpt2, ["c_attn:v"]),
    "gpt2-conv1d": (gpt2, ["c_attn", "c_fc"]),
    "llama": (llama, ["q_proj", "v_proj"]),
}


@pytest.fixture(params=MODELS)
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, list[str], Path]:
    build, targets = MODELS[request.param]
    folder = tmp_path / "backbone"
    build().save_pretrained(folder)
    return build, targets, folder


def adapted(folder: Path, build: Any, targets: list[str], method: Any = "dylora") -> nn.Module:
    torch.manual_seed(7)
    model = type(build()).from_pretrained(folder).eval()
    dylora.adapt(model, targets, max_rank=4, alpha=8, method=method)
    randomize(model)
    for name, parameter in model.named_parameters():
        if "classifier" in name:  # a trained head is part of the adapter
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("method", ["lora", "dylora"])
def test_peft_gives_equal_logits_at_every_rank_merged_too(
    backbone: tuple[Any, list[str], Path], method: str, tmp_path: Path
) -> None:
    build, targets, folder = backbone
    model, x = adapted(folder, build, targets, method), inputs()
    for rank in (1, 2, 4):
        with dylora.at_rank(model, rank):
            expected = model(x).logits
        assert not torch.allclose(expected, build()(x).logits, atol=1e-3)
        exported = dylora.export_peft(model, tmp_path / f"r{rank}", rank=rank)
        fresh = type(build()).from_pretrained(folder)
        loaded = peft.PeftModel.from_pretrained(fresh, exported).eval()
        torch.testing.assert_close(loaded(x).logits, expected, rtol=1e-4, atol=1e-5)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(x).logits, expected, rtol=1e-4, atol=1e-4)


def test_auto_classes_find_the_backbone_by_themselves(
    backbone: tuple[Any, list[str], Path], tmp_path: Path
) -> None:
    build, targets, folder = backbone
    model = adapted(folder, build, targets)
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    auto = (
        peft.AutoPeftModelForSequenceClassification if classifies else peft.AutoPeftModelForCausalLM
    )
    for rank in (1, 3):
        exported = dylora.export_peft(model, tmp_path / f"r{rank}", rank=rank)
        with dylora.at_rank(model, rank):
            expected = model(inputs()).logits
        loaded = auto.from_pretrained(exported).eval()
        torch.testing.assert_close(loaded(inputs()).logits, expected, rtol=1e-4, atol=1e-5)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(inputs()).logits, expected, rtol=1e-4, atol=1e-4)


def test_transformers_load_adapter_gives_equal_logits_head_included(
    backbone: tuple[Any, list[str], Path], tmp_path: Path
) -> None:
    build, targets, folder = backbone
    model = adapted(folder, build, targets)
    for rank in (1, 3, 4):
        exported = dylora.export_peft(model, tmp_path / f"r{rank}", rank=rank)
        loaded = type(build()).from_pretrained(folder)
        report = loaded.load_adapter(str(exported))
        assert not report.missing_keys and not report.unexpected_keys
        with dylora.at_rank(model, rank):
            expected = model(inputs()).logits
        torch.testing.assert_close(loaded(inputs()).logits, expected, rtol=1e-4, atol=1e-5)


def test_merged_folders_load_as_full_models_and_leave_the_adapted_one_alone(
    backbone: tuple[Any, list[str], Path], tmp_path: Path
) -> None:
    build, targets, folder = backbone
    model = adapted(folder, build, targets)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    is_decoder = build in (gpt2, llama)
    auto = AutoModelForCausalLM if is_decoder else AutoModelForSequenceClassification
    for rank in (1, 3):
        exported = dylora.export_merged(model, tmp_path / f"r{rank}", rank)
        loaded, report = auto.from_pretrained(exported, output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys"))
        with dylora.at_rank(model, rank):
            expected = model(inputs()).logits
        torch.testing.assert_close(loaded(inputs()).logits, expected, rtol=1e-4, atol=1e-4)
        assert list(loaded.state_dict()) == list(type(build()).from_pretrained(folder).state_dict())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_merging_needs_an_adapter_that_has_the_rank(tmp_path: Path) -> None:
    with pytest.raises(dylora.UserError, match="no low-rank adapter"):
        dylora.export_merged(roberta(), tmp_path / "out", 1)
    model = dylora.adapt(roberta(), ["query"], max_rank=4)
    for rank in (0, 5):
        with pytest.raises(dylora.UserError, match=r"1\.\.4|\[1, 4\]"):
            dylora.export_merged(model, tmp_path / "out", rank)
    assert not (tmp_path / "out").exists()


def with_peft(exported: Path, model: Any) -> Any:
    return peft.PeftModel.from_pretrained(model, exported).eval()


def with_transformers(exported: Path, model: Any) -> Any:
    model.load_adapter(str(exported))
    return model


LOADERS = pytest.mark.parametrize("load", [with_peft, with_transformers])


@LOADERS
def test_a_wrong_alpha_in_the_folder_would_be_noticed(load: Any, tmp_path: Path) -> None:
    roberta().save_pretrained(tmp_path / "backbone")
    model = adapted(tmp_path / "backbone", roberta, ["query", "value"])
    exported = dylora.export_peft(model, tmp_path / "r2", rank=2)
    config = json.loads((exported / "adapter_config.json").read_text())
    (exported / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 4}))
    loaded = load(exported, type(model).from_pretrained(tmp_path / "backbone"))
    with dylora.at_rank(model, 2):
        assert not torch.allclose(loaded(inputs()).logits, model(inputs()).logits, atol=1e-4)


@LOADERS
def test_layers_can_have_ranks_of_their_own(load: Any, tmp_path: Path) -> None:
    roberta().save_pretrained(tmp_path / "backbone")
    model = adapted(tmp_path / "backbone", roberta, ["query", "value"])
    ranks = {name: 1 + number % 4 for number, name in enumerate(adapter_layers(model))}
    assert set(ranks.values()) == {1, 2, 3, 4}
    exported = dylora.export_peft(model, tmp_path / "mixed", rank=ranks)
    loaded = load(exported, type(model).from_pretrained(tmp_path / "backbone"))
    layers = adapter_layers(model)
    for name, rank in ranks.items():  # each layer's delta, added into the weights by hand
        with dylora.at_rank(model, rank):
            layers[name].base.weight.data += layers[name].delta()
    with dylora.at_rank(model, None):
        expected = model(inputs()).logits
    torch.testing.assert_close(loaded(inputs()).logits, expected, rtol=1e-4, atol=1e-5)


@LOADERS
@pytest.mark.parametrize("other", [lambda: roberta(labels=3), gpt2])
def test_a_backbone_that_does_not_fit_is_refused(load: Any, other: Any, tmp_path: Path) -> None:
    model = dylora.adapt(roberta(), ["query", "value"], max_rank=4)
    exported = dylora.export_peft(model, tmp_path / "r2", rank=2)
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)mismatch|not found"):
        load(exported, other())


def test_transformers_only_reports_a_backbone_of_another_family(tmp_path: Path) -> None:
    """As docs/export.md says: where layers' names and sizes fit, nothing but the report tells."""
    model = dylora.adapt(roberta(), ["query", "value"], max_rank=4)
    exported = dylora.export_peft(model, tmp_path / "r2", rank=2)
    report = bert().load_adapter(str(exported))
    assert any("lora_A" in name for name in report.missing_keys)
    with pytest.raises(KeyError, match="classifier"):
        peft.PeftModel.from_pretrained(bert(), exported)


def test_a_saved_file_exports_like_the_model(tmp_path: Path) -> None:
    roberta().save_pretrained(tmp_path / "backbone")
    model = adapted(tmp_path / "backbone", roberta, ["query", "value"])
    file = dylora.save_adapter(model, tmp_path / "adapter.safetensors")
    folders = [
        dylora.export_peft(source, tmp_path / str(number), rank=3)
        for number, source in enumerate((model, file))
    ]
    tensors, again = (folder / "adapter_model.safetensors" for folder in folders)
    assert tensors.read_bytes() == again.read_bytes()
    config, again = (json.loads((folder / "adapter_config.json").read_text()) for folder in folders)
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (3, 8, "SEQ_CLS")
    assert config.pop("base_model_name_or_path") == str(tmp_path / "backbone")
    assert again.pop("base_model_name_or_path") is None, "a file names no folder of this machine"
    assert config == again


def test_the_caller_may_say_what_the_backbone_is_elsewhere(tmp_path: Path) -> None:
    roberta().save_pretrained(tmp_path / "backbone")
    model = adapted(tmp_path / "backbone", roberta, ["query"])
    facts = {"base_model": "FacebookAI/roberta-base", "revision": "main"}
    exported = dylora.export_peft(model, tmp_path / "r1", 1, **facts)
    config = peft.PeftConfig.from_pretrained(exported)
    assert (config.base_model_name_or_path, config.revision) == tuple(facts.values())


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_that_the_adapter_has_not_is_refused(rank: int, tmp_path: Path) -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=4)
    with pytest.raises(dylora.UserError, match=r"outside 1\.\.4"):
        dylora.export_peft(model, tmp_path / "out", rank=rank)
    assert not (tmp_path / "out").exists()


def test_ranks_by_layer_must_name_every_layer(tmp_path: Path) -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=4)
    with pytest.raises(dylora.UserError, match="missing or unknown"):
        dylora.export_peft(model, tmp_path, rank={"query": 1})


def test_unequal_component_weights_are_multiplied_into_b(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No method here has them, but a rule of one's own may; PEFT knows one scaling per layer."""

    def rule(rank: int, max_rank: int, alpha: float) -> list[float]:
        return [alpha / (1 + i) for i in range(rank)]

    monkeypatch.setitem(METHODS, "own", Method(name="own", label="Own", rule=rule))
    roberta().save_pretrained(tmp_path / "backbone")
    model = adapted(tmp_path / "backbone", roberta, ["query", "value"], method="own")
    exported = dylora.export_peft(model, tmp_path / "r3", rank=3)
    fresh = type(model).from_pretrained(tmp_path / "backbone")
    loaded = peft.PeftModel.from_pretrained(fresh, exported).eval()
    with dylora.at_rank(model, 3):
        torch.testing.assert_close(
            loaded(inputs()).logits, model(inputs()).logits, rtol=1e-4, atol=1e-5
        )


def test_a_tied_layer_is_merged_untied_and_leaves_the_embedding_alone(tmp_path: Path) -> None:
    """GPT-2's lm_head is the embedding's own tensor; the delta is for one use of it only."""
    model = dylora.adapt(gpt2(), ["lm_head", "c_attn"], max_rank=4, alpha=8)
    randomize(model)
    embedding = model.transformer.wte.weight
    before, expected = embedding.clone(), model(inputs()).logits
    with dylora.merged(model, 4):
        torch.testing.assert_close(model(inputs()).logits, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(embedding, before)
    loaded = type(model).from_pretrained(dylora.export_merged(model, tmp_path / "merged", 4))
    torch.testing.assert_close(loaded(inputs()).logits, expected, rtol=1e-4, atol=1e-4)
    assert model.config.tie_word_embeddings
    assert model.lm_head.base.weight is embedding and torch.equal(embedding, before)


@pytest.mark.parametrize("from_file", [False, True])
def test_peft_gets_no_adapter_that_it_would_merge_into_the_embedding(
    from_file: bool, tmp_path: Path
) -> None:
    model: Any = dylora.adapt(gpt2(), ["lm_head"], max_rank=4)
    source = dylora.save_adapter(model, tmp_path / "a.safetensors") if from_file else model
    with pytest.raises(dylora.UserError, match=r"lm_head shares its weight.*export_merged"):
        dylora.export_peft(source, tmp_path / "peft", rank=2)
    assert not (tmp_path / "peft").exists()
