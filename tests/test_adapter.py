"""Adapters on whole models: against PEFT, merged, saved and loaded."""

import json
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import gpt2, inputs, llama, randomize, roberta
from torch import nn
from transformers import RobertaForSequenceClassification

import dylora
from dylora.adapted import adapter_layers
from dylora.adapter import adapter_state

MODELS = {
    "roberta": (roberta, ["query", "value"]),
    "gpt2-fused": (gpt2, ["c_attn:q,v"]),
    "gpt2-conv1d": (gpt2, ["c_attn", "attn.c_proj", "c_fc"]),
    "llama": (llama, ["q_proj", "v_proj"]),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    build, targets = MODELS[request.param]
    made = dylora.adapt(build(), targets, max_rank=4, alpha=8)
    randomize(made)
    return made


@pytest.mark.parametrize("name", ["roberta", "gpt2-conv1d", "llama"])
def test_values_and_gradients_equal_pefts_lora_at_max_rank(name: str) -> None:
    build, targets = MODELS[name]
    ours = dylora.adapt(build(), targets, max_rank=4, alpha=8, head=[])
    randomize(ours)
    options = {"target_modules": targets, "fan_in_fan_out": name == "gpt2-conv1d"}
    theirs = peft.get_peft_model(build(), peft.LoraConfig(r=4, lora_alpha=8, **options)).eval()
    twins = {
        f"base_model.model.{n[:-6]}lora_{n[-1]}.default.weight": tensor
        for n, tensor in adapter_state(ours).items()
    }
    parameters = dict(theirs.named_parameters())
    with torch.no_grad():
        for their_name, tensor in twins.items():
            parameters[their_name].copy_(tensor)
    x = inputs()
    assert not torch.allclose(ours(x).logits, build()(x).logits, atol=1e-3)
    torch.testing.assert_close(ours(x).logits, theirs(x).logits)
    for tuned in (ours, theirs):
        (tuned(x).logits ** 2).mean().backward()
    own = dict(ours.named_parameters())
    for n in adapter_state(ours):
        mine = own[n.replace(".lora_", ".low_rank.lora_")].grad
        their = parameters[f"base_model.model.{n[:-6]}lora_{n[-1]}.default.weight"].grad
        torch.testing.assert_close(mine, their)
        assert mine.abs().max() > 0


def test_only_adapter_and_head_are_trained() -> None:
    model = dylora.adapt(roberta(), ["query", "value"], max_rank=4)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert all(".lora_" in n or n.startswith("classifier.") for n in trained)
    assert sum(".lora_" in n for n in trained) == 2 * 2 * 2  # layers x targets x (A, B)
    assert any(n.startswith("classifier.") for n in trained)


def test_layers_of_the_head_are_not_adapted() -> None:
    model = dylora.adapt(roberta(), ["dense"], max_rank=2)
    assert adapter_layers(model)
    assert not any(name.startswith("classifier") for name in adapter_layers(model))


def test_merged_gives_the_same_outputs_and_restores_every_bit(model: nn.Module) -> None:
    x = inputs()
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    for rank in (1, 3, 4):
        with dylora.at_rank(model, rank):
            expected = model(x).logits
        with dylora.merged(model, rank):
            torch.testing.assert_close(model(x).logits, expected, rtol=1e-4, atol=1e-5)
            layer = next(iter(adapter_layers(model).values()))
            assert not torch.equal(layer.base.weight, weights_of(layer, weights, model))
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())


def weights_of(layer: nn.Module, weights: dict, model: nn.Module) -> torch.Tensor:
    name = next(n for n, m in model.named_modules() if m is layer)
    return weights[f"{name}.base.weight"]


def test_merged_restores_after_an_exception(model: nn.Module) -> None:
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    x = inputs()
    logits = model(x).logits
    with pytest.raises(RuntimeError), dylora.merged(model, 2):
        raise RuntimeError
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert torch.equal(model(x).logits, logits)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_adapter_gives_the_same_outputs_under_another_seed(
    name: str, tmp_path: Path
) -> None:
    build, targets = MODELS[name]
    model = dylora.adapt(build(), targets, max_rank=4, alpha=8)
    randomize(model)
    path = dylora.save_adapter(model, tmp_path / "adapter.safetensors")
    torch.manual_seed(99)
    fresh = build()
    torch.manual_seed(98)
    loaded = dylora.load_adapter(fresh, path, rank=3)
    x = inputs()
    with dylora.at_rank(model, 3):
        expected = model(x).logits
    assert torch.equal(loaded(x).logits, expected)
    assert not torch.allclose(expected, build()(x).logits, atol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["adapter.safetensors"]


def test_the_file_says_how_it_was_made(tmp_path: Path) -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=4, alpha=8, frozen=True)
    path = dylora.save_adapter(model, tmp_path / "a.safetensors", task="mrpc")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        names = set(file.keys())
    config = json.loads(metadata["adapter"])
    assert (config["max_rank"], config["alpha"], config["frozen"]) == (4, 8, True)
    assert metadata["task"] == "mrpc"
    assert "roberta.encoder.layer.0.attention.self.query.lora_A" in names
    assert "classifier.dense.weight" in names


def test_a_wrong_alpha_is_refused(tmp_path: Path) -> None:
    path = dylora.save_adapter(
        dylora.adapt(roberta(), ["query"], max_rank=4, alpha=8), tmp_path / "a.safetensors"
    )
    other = dylora.adapt(roberta(), ["query"], max_rank=4, alpha=16)
    with pytest.raises(dylora.UserError, match="alpha=8"):
        dylora.load_adapter(other, path)


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_above_the_files_is_refused_and_leaves_the_model_bare(
    rank: int, tmp_path: Path
) -> None:
    path = dylora.save_adapter(
        dylora.adapt(roberta(), ["query"], max_rank=4), tmp_path / "a.safetensors"
    )
    model = roberta()
    with pytest.raises(dylora.UserError, match=rf"rank {rank} is outside 1\.\.4.*a\.safetensors"):
        dylora.load_adapter(model, path, rank=rank)
    assert not adapter_layers(model)


def test_an_adapter_of_another_backbone_is_refused(tmp_path: Path) -> None:
    path = dylora.save_adapter(
        dylora.adapt(roberta(labels=3), ["query"], max_rank=4), tmp_path / "a.safetensors"
    )
    with pytest.raises(dylora.UserError, match=r"classifier\.out_proj\.weight has shape"):
        dylora.load_adapter(roberta(labels=2), path)
    with pytest.raises(dylora.UserError, match="matches no linear layer of GPT2LMHeadModel"):
        dylora.load_adapter(gpt2(), path)


def test_files_that_are_no_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(dylora.UserError, match="no adapter file"):
        dylora.load_adapter(roberta(), tmp_path / "absent.safetensors")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"garbage")
    with pytest.raises(dylora.UserError, match="not a safetensors file"):
        dylora.load_adapter(roberta(), garbage)


def test_equal_adapters_give_equal_files(tmp_path: Path) -> None:
    """safetensors writes metadata in a random order, of which there are many here."""
    facts = {f"fact{number}": "x" for number in range(8)}
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file in files:
        dylora.save_adapter(dylora.adapt(roberta(), ["query"], max_rank=4), file, **facts)
    assert len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], "pt") as file:
        assert file.metadata()["fact7"] == "x"


def test_an_adapters_file_names_its_backbone_of_the_hub_but_no_folder(tmp_path: Path) -> None:
    written = set()
    for number in range(2):
        roberta().save_pretrained(tmp_path / str(number))
        model = RobertaForSequenceClassification.from_pretrained(tmp_path / str(number))
        file = dylora.save_adapter(dylora.adapt(model, ["query"]), tmp_path / "a.safetensors")
        written.add(file.read_bytes())
        assert len(written) == 1 and str(tmp_path).encode() not in file.read_bytes()
    model.config.name_or_path = "FacebookAI/roberta-base"
    assert b"FacebookAI/roberta-base" in dylora.save_adapter(model, file).read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_holds_no_numbers_is_neither_saved_nor_loaded(
    value: float, tmp_path: Path
) -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=4)
    path = dylora.save_adapter(model, tmp_path / "a.safetensors")
    tensors = load_file(path)
    name = "roberta.encoder.layer.1.attention.self.query.lora_B"
    tensors[name][0, 0] = value
    with safe_open(path, "pt") as file:
        facts = {k: v for k, v in file.metadata().items() if k != "sha256"}
    save_file(tensors, path, facts)
    with pytest.raises(dylora.UserError, match=r"a\.safetensors: roberta.*lora_B has values"):
        dylora.load_adapter(roberta(), path)
    with torch.no_grad():
        model.get_submodule(name.rpartition(".")[0]).low_rank.lora_B[0, 0] = value
    with pytest.raises(dylora.UserError, match="lora_B has values that are not finite"):
        dylora.save_adapter(model, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_an_unknown_target_names_the_layers_that_there_are() -> None:
    with pytest.raises(dylora.UserError, match=r"'q_proj' matches no .*dense, key, query, value"):
        dylora.adapt(roberta(), ["q_proj"])


@pytest.mark.parametrize("method", ["LoRA", "full"])
def test_a_name_of_no_method_with_adapters_is_refused_and_leaves_the_model(method: str) -> None:
    model = roberta()
    with pytest.raises(dylora.UserError, match=f"method='{method}'.*use dylora, lora"):
        dylora.adapt(model, ["query"], method=method)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_parts_of_a_layer_that_is_not_fused_are_refused() -> None:
    with pytest.raises(dylora.UserError, match="three equal parts"):
        dylora.adapt(roberta(), ["query:q,v"])
    with pytest.raises(dylora.UserError, match="out of q, k, v"):
        dylora.adapt(gpt2(), ["c_attn:q,x"])


def test_a_fused_layer_applies_the_dropout_once() -> None:
    model = dylora.adapt(gpt2(), ["c_attn:q,v", "c_fc"], dropout=0.25)
    layers = adapter_layers(model)
    fused = layers["transformer.h.0.attn.c_attn"]
    assert fused.dropout.p == 0.25 and {part.dropout.p for part in fused.parts.values()} == {0.0}
    assert layers["transformer.h.0.mlp.c_fc"].low_rank.dropout.p == 0.25


def test_adapting_twice_is_refused() -> None:
    model = dylora.adapt(roberta(), ["query"])
    with pytest.raises(dylora.UserError, match="already"):
        dylora.adapt(model, ["value"])


def step(model: nn.Module, optimizer: torch.optim.Optimizer, hold: bool) -> None:
    optimizer.zero_grad()
    (model(inputs()).logits ** 2).mean().backward()
    if hold:
        with dylora.hold_untrained_rows(model):
            optimizer.step()
    else:
        optimizer.step()


@pytest.mark.parametrize("hold", [False, True])
def test_adamw_moves_rows_without_gradient_unless_they_are_held(hold: bool) -> None:
    """Momentum of an earlier step and weight decay reach rows that the rank in force left out."""
    model = dylora.adapt(roberta(), ["query"], max_rank=4)
    randomize(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    step(model, optimizer, hold)  # at rank 4: every row has momentum now
    before = {n: t.clone() for n, t in adapter_state(model).items()}
    dylora.set_rank(model, 2)
    step(model, optimizer, hold)
    for name, tensor in adapter_state(model).items():
        if name.endswith("lora_A"):
            moved = (tensor != before[name]).any(dim=1).tolist()
        elif name.endswith("lora_B"):
            moved = (tensor != before[name]).any(dim=0).tolist()
        else:
            continue
        assert moved == [True, True, not hold, not hold], name


def test_frozen_rows_have_no_gradient_in_a_whole_model() -> None:
    model = dylora.adapt(roberta(), ["query"], max_rank=4, frozen=True)
    randomize(model)
    dylora.set_rank(model, 3)
    (model(inputs()).logits ** 2).mean().backward()
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            nonzero = (parameter.grad != 0).any(dim=1).tolist()
            assert nonzero == [False, False, True, False]


def test_the_library_is_usable_without_the_suite() -> None:
    """`import dylora` and its functions load neither Hydra nor data nor trackers."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); import tiny, dylora; "
        "model = dylora.adapt(tiny.roberta(), ['query']); dylora.set_rank(model, 1); "
        "loaded = {'hydra', 'omegaconf', 'datasets', 'wandb', 'evaluate'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_importing_the_library_does_not_load_torch() -> None:
    code = "import sys, dylora; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
