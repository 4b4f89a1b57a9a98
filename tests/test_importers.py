"""Adapters from PEFT and loralib: the same function here, and one clear error for what is none."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny import gpt2, inputs, llama, roberta
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaForSequenceClassification

import dylora
from dylora.adapted import adapter_layers

QUERY = "roberta.encoder.layer.0.attention.self.query"
SEQ_CLS = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]}
C_ATTN = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
PEFT_CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "roberta with its head": (roberta, SEQ_CLS),
    "rsLoRA": (roberta, {**SEQ_CLS, "use_rslora": True}),
    "alpha by layer": (roberta, {**SEQ_CLS, "alpha_pattern": {"layer.0.attention.self.query": 3}}),
    "rank by layer": (
        roberta,
        {**SEQ_CLS, "use_rslora": True, "rank_pattern": {"value": 2, "layer.1.*.query": 5}},
    ),
    "some layers only": (roberta, {**SEQ_CLS, "layers_to_transform": [1]}),
    "gpt2's fused layer": (gpt2, C_ATTN),
    "llama": (llama, {"target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.3}),
}


def perturbed(build: Callable[[], Any], options: dict[str, Any]) -> Any:
    """A PEFT model whose adapter and head differ from a fresh one, as after training."""
    torch.manual_seed(3)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **options})
    model = peft.get_peft_model(build(), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape) * (0.3 if "lora" in name else 1.0))
    return model


def saved(folder: Path, build: Callable[[], Any] = roberta, **options: Any) -> Path:
    perturbed(build, options or SEQ_CLS).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", PEFT_CASES)
def test_a_peft_folder_gives_the_same_logits(case: str, tmp_path: Path) -> None:
    build, options = PEFT_CASES[case]
    theirs = perturbed(build, options)
    theirs.save_pretrained(tmp_path)
    ours = dylora.load_adapter(build(), tmp_path)
    expected = theirs(inputs()).logits
    assert not torch.allclose(expected, build()(inputs()).logits, atol=1e-2)
    torch.testing.assert_close(ours.eval()(inputs()).logits, expected)


def test_weights_of_an_older_peft_are_read_without_running_code(tmp_path: Path) -> None:
    theirs = perturbed(roberta, SEQ_CLS)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "adapter_model.bin")
    ours = dylora.load_adapter(roberta(), tmp_path)
    torch.testing.assert_close(ours(inputs()).logits, theirs(inputs()).logits)
    (tmp_path / "adapter_model.bin").write_bytes(evil(tmp_path / "run"))
    with pytest.raises(dylora.UserError, match=r"adapter_model\.bin is refused"):
        dylora.load_adapter(roberta(), tmp_path)
    assert not (tmp_path / "run").exists()


def test_components_that_a_layer_lacks_add_nothing_and_can_learn(tmp_path: Path) -> None:
    saved(tmp_path, **{**SEQ_CLS, "rank_pattern": {"value": 2}})
    model = dylora.load_adapter(roberta(), tmp_path)
    (model(inputs()).logits ** 2).mean().backward()
    part = next(m for n, m in adapter_layers(model).items() if n.endswith("value")).low_rank
    assert part.lora_A.shape[0] == 4 and not part.lora_B[:, 2:].any()
    assert part.lora_B.grad[:, 2:].abs().min() > 0


def test_what_is_exported_comes_back(tmp_path: Path) -> None:
    model = dylora.load_adapter(gpt2(), saved(tmp_path / "theirs", gpt2, **C_ATTN))
    dylora.export_peft(model, tmp_path / "ours", rank=2)
    again = dylora.load_adapter(gpt2(), tmp_path / "ours")
    with dylora.at_rank(model, 2):
        torch.testing.assert_close(again(inputs()).logits, model(inputs()).logits)


def loralib_state(model: nn.Module, layer: str, r: int, parts: int = 1) -> dict[str, Tensor]:
    """Random lora_A (parts * r, 32) and lora_B (parts * 32, r) of every such layer."""
    torch.manual_seed(5)
    state = {}
    for name, _ in model.named_modules():
        if name.endswith(layer):
            state[f"{name}.lora_A"] = torch.randn(parts * r, 32)
            state[f"{name}.lora_B"] = torch.randn(parts * 32, r)
    return state


def test_a_loralib_file_adds_its_scaled_product(tmp_path: Path) -> None:
    """loralib's Linear: W + (alpha / r) B A."""
    state = loralib_state(roberta(), "query", r=4)
    state |= {n: torch.randn_like(p) for n, p in roberta().named_parameters() if "classifier" in n}
    torch.save(state, tmp_path / "lora.pt")
    expected = roberta()
    parameters = dict(expected.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            if name.endswith("lora_A"):
                B = state[name.replace("lora_A", "lora_B")]
                parameters[name.replace("lora_A", "weight")] += 6 / 4 * B @ tensor
            elif "classifier" in name:
                parameters[name].copy_(tensor)
    model = dylora.load_adapter(roberta(), tmp_path / "lora.pt", alpha=6)
    torch.testing.assert_close(model(inputs()).logits, expected(inputs()).logits)


@pytest.mark.parametrize("enabled", [(True, False, True), (True, True, True)])
def test_a_merged_linear_adds_a_grouped_convolution(enabled: tuple, tmp_path: Path) -> None:
    """loralib's MergedLinear: conv1d of A with B in groups, put where enable_lora says."""
    count = sum(enabled)
    state = loralib_state(gpt2(), "c_attn", r=3, parts=count)
    wrapped = {"model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(wrapped, tmp_path / "model.pt")  # as LoRA's GPT-2 code does, under DDP
    expected = gpt2()
    for name, module in expected.named_modules():
        if name.endswith("c_attn"):
            A, B = state[f"{name}.lora_A"], state[f"{name}.lora_B"]
            product = F.conv1d(A.unsqueeze(0), B.unsqueeze(-1), groups=count).squeeze(0)
            delta = torch.zeros(3, 32, 32)
            delta[list(enabled)] = product.view(count, 32, 32)
            module.weight.data += 12 / 3 * delta.view(96, 32).T
    model = dylora.load_adapter(gpt2(), tmp_path / "model.pt", alpha=12)
    logits = expected(inputs()).logits
    torch.testing.assert_close(model(inputs()).logits, logits, rtol=1e-4, atol=1e-4)


def test_the_released_mnli_adapter_gives_the_function_of_its_tensors(shared_data: Path) -> None:
    file = shared_data / "checkpoints" / "roberta_base_lora_mnli.bin"
    state = torch.load(file, weights_only=True, map_location="cpu")
    config = RobertaConfig(vocab_size=50, intermediate_size=16, num_labels=3)
    torch.manual_seed(0)
    model = RobertaForSequenceClassification(config).eval()
    x = inputs(2, 5)
    with torch.inference_mode():
        plain = model(x).logits
    dylora.load_adapter(model, file, alpha=16)
    assert len(adapter_layers(model)) == 24 and model.adapter_config.max_rank == 8
    with torch.inference_mode():
        loaded = model(x).logits
        for name, layer in adapter_layers(model).items():
            B, A = state[f"{name}.lora_B"], state[f"{name}.lora_A"]
            torch.testing.assert_close(layer.delta(), 16 / 8 * B @ A)
            layer.base.weight += 16 / 8 * B @ A
        with dylora.at_rank(model, None):
            expected = model(x).logits
    torch.testing.assert_close(loaded, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(loaded, plain, atol=0.1)
    assert torch.equal(model.classifier.out_proj.weight, state["classifier.out_proj.weight"])


@pytest.mark.parametrize("method", ["lora", "dylora"])
def test_a_warm_start_has_the_sources_function_at_max_rank(method: Any, tmp_path: Path) -> None:
    theirs = perturbed(llama, {"target_modules": ["q_proj"], "use_rslora": True})
    theirs.save_pretrained(tmp_path)
    model = dylora.adapt(llama(), ["q_proj"], max_rank=4, alpha=16, method=method)
    dylora.warm_start(model, tmp_path)
    torch.testing.assert_close(model(inputs()).logits, theirs(inputs()).logits)
    assert model.adapter_config.alpha == 16


def test_a_warm_start_keeps_the_head(tmp_path: Path) -> None:
    model = dylora.adapt(roberta(labels=3), ["query", "value"], max_rank=4, alpha=6)
    head = {n: p.clone() for n, p in model.named_parameters() if "classifier" in n}
    dylora.warm_start(model, saved(tmp_path))
    assert all(torch.equal(p, head[n]) for n, p in model.named_parameters() if n in head)
    layer = adapter_layers(model)[QUERY].low_rank
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert torch.equal(layer.lora_B, tensors[f"base_model.model.{QUERY}.lora_B.weight"])
    headless = RobertaForMaskedLM(roberta().config)
    dylora.warm_start(dylora.adapt(headless, ["query", "value"], max_rank=4, alpha=6), tmp_path)


def start(folder: Path, max_rank: int, *targets: str) -> None:
    dylora.warm_start(dylora.adapt(roberta(), targets, max_rank), folder)


def test_a_warm_start_that_does_not_fit_says_what_to_set(tmp_path: Path) -> None:
    saved(tmp_path)
    for rank in (2, 8):
        with pytest.raises(dylora.UserError, match=r"has rank 4.*method\.max_rank=4"):
            start(tmp_path, rank, "query", "value")
    with pytest.raises(dylora.UserError, match=r"self\.value, which is none of query"):
        start(tmp_path, 4, "query")
    with pytest.raises(dylora.UserError, match=r"not adapt key.*target_modules=\[query,value\]"):
        start(tmp_path, 4, "query", "key")
    model = dylora.adapt(gpt2(), ["c_attn:q,v"], max_rank=4)
    saved(tmp_path / "whole", gpt2, **C_ATTN)
    with pytest.raises(dylora.UserError, match=r"not adapt c_attn\.q.*target_modules=\[c_attn\]"):
        dylora.warm_start(model, tmp_path / "whole")


class Code:
    """Unpickles as a call of os.mkdir."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


def evil(sign: Path, **options: Any) -> bytes:
    return pickle.dumps({f"{QUERY}.lora_A": Code(sign)}, **options)


@pytest.mark.parametrize("form", ["torch", "pickle", "old pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    file, sign = tmp_path / "adapter.bin", tmp_path / "was_run"
    if form == "torch":
        torch.save({f"{QUERY}.lora_A": torch.ones(2, 32), "x": Code(sign)}, file)
    else:
        file.write_bytes(evil(sign, protocol=2 if form == "old pickle" else 4))
    with pytest.raises(dylora.UserError, match=r"adapter\.bin is refused.*could run any code"):
        dylora.load_adapter(roberta(), file, alpha=8)
    assert not sign.exists()
    pickle.loads(evil(sign))
    assert sign.exists()  # the trap works


@pytest.mark.parametrize("keep", [0, 30, 2000])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_file_that_is_cut_off_is_one_clear_error(suffix: str, keep: int, tmp_path: Path) -> None:
    state = loralib_state(roberta(), "query", r=4)
    file = tmp_path / f"adapter{suffix}"
    (torch.save if suffix == ".bin" else save_file)(state, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(dylora.UserError, match=rf"adapter{suffix}.*(damaged|not a safetensors)"):
        dylora.load_adapter(roberta(), file, alpha=8)


GOOD = {f"{QUERY}.lora_A": torch.ones(2, 32), f"{QUERY}.lora_B": torch.ones(32, 2)}
BAD_STATES: dict[str, tuple[Any, float | None, str]] = {
    "no alpha": (GOOD, None, r"does not say the alpha .*init_alpha=16"),
    "alpha below 0": (GOOD, -1.0, "alpha=-1"),
    "other things": ({"epoch": 3}, 8, "does not hold tensors by their names"),
    "no adapter": ({"weight": torch.ones(2, 2)}, 8, "no adapter: it has neither"),
    "half a pair": ({f"{QUERY}.lora_A": torch.ones(2, 32)}, 8, f"only one of .*{QUERY}"),
    "ranks that differ": ({**GOOD, f"{QUERY}.lora_B": torch.ones(32, 3)}, 8, f"{QUERY} are no"),
    "not finite": ({**GOOD, f"{QUERY}.lora_B": torch.full((32, 2), torch.nan)}, 8, "not finite"),
    "a trained bias": ({**GOOD, f"{QUERY}.bias": torch.ones(32)}, 8, rf"holds {QUERY}\.bias"),
    "an unknown module": (
        {f"roberta.nowhere.{n[-6:]}": t for n, t in GOOD.items()},
        8,
        r"'roberta\.nowhere' matches no linear layer",
    ),
    "another width": ({**GOOD, f"{QUERY}.lora_A": torch.ones(2, 16)}, 8, rf"{QUERY}\.lora_A .*16"),
    "another head": (
        {**GOOD, "classifier.out_proj.weight": torch.ones(3, 32)},
        8,
        r"has no classifier\.dense",
    ),
}


@pytest.mark.parametrize("fault", BAD_STATES)
def test_a_loralib_file_that_does_not_fit_names_itself(fault: str, tmp_path: Path) -> None:
    state, alpha, message = BAD_STATES[fault]
    torch.save(state, tmp_path / "lora.pt")
    with pytest.raises(dylora.UserError, match=message) as caught:
        dylora.load_adapter(roberta(), tmp_path / "lora.pt", alpha=alpha)
    assert fault == "alpha below 0" or "lora.pt" in str(caught.value)


BAD_FOLDERS: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "sets use_dora"),
    "biases": ({"bias": "all"}, "sets bias=all"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa changes the backbone"),
    "embeddings": ({"target_modules": ["query", "word_embeddings"]}, "holds .*lora_embedding_A"),
}


@pytest.mark.parametrize("fault", BAD_FOLDERS)
def test_a_peft_folder_that_is_no_plain_lora_is_refused(fault: str, tmp_path: Path) -> None:
    options, message = BAD_FOLDERS[fault]
    saved(tmp_path, **{**SEQ_CLS, **options})
    with pytest.raises(dylora.UserError, match=message) as caught:
        dylora.load_adapter(roberta(), tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_peft_folder_of_another_type_is_refused(tmp_path: Path) -> None:
    options = {"target_modules": ["key"], "feedforward_modules": []}
    peft.get_peft_model(roberta(), peft.IA3Config(**options)).save_pretrained(tmp_path)
    with pytest.raises(dylora.UserError, match=r"adapter_config\.json: .* type IA3; only LORA"):
        dylora.load_adapter(roberta(), tmp_path)


def test_a_damaged_peft_folder_names_the_file(tmp_path: Path) -> None:
    saved(tmp_path)
    config = tmp_path / "adapter_config.json"
    text = config.read_text()
    for content, message in (
        (text[:50], "cannot be read"),
        (json.dumps({**json.loads(text), "lora_alpha": None}), "lora_alpha is None"),
        (json.dumps({**json.loads(text), "r": 8}), "of rank 8"),
        (json.dumps({**json.loads(text), "lora_bias": True}), "sets lora_bias"),
    ):
        config.write_text(content)
        with pytest.raises(dylora.UserError, match=message) as caught:
            dylora.load_adapter(roberta(), tmp_path)
        assert "adapter_config.json" in str(caught.value)
    config.unlink()
    with pytest.raises(dylora.UserError, match="neither adapter"):
        dylora.load_adapter(roberta(), tmp_path)
    with pytest.raises(dylora.UserError, match="name the folder"):
        dylora.load_adapter(roberta(), tmp_path / "adapter_model.safetensors", alpha=8)


def test_an_adapter_of_another_backbone_names_module_and_file(tmp_path: Path) -> None:
    saved(tmp_path)
    for build in (gpt2, llama):
        with pytest.raises(dylora.UserError, match=f"{QUERY}' matches no linear layer") as caught:
            dylora.load_adapter(build(), tmp_path)
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(dylora.UserError, match=r"classifier\.out_proj.*\(2, .*\(3, "):
        dylora.load_adapter(roberta(labels=3), tmp_path)


def test_a_rank_above_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dylora.UserError, match=rf"rank 5 is outside 1\.\.4, what {tmp_path} has"):
        dylora.load_adapter(roberta(), saved(tmp_path), rank=5)


def test_an_alpha_that_the_source_says_itself_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "theirs")
    model = dylora.load_adapter(roberta(), tmp_path / "theirs")
    ours = dylora.save_adapter(model, tmp_path / "ours.safetensors")
    for source in (tmp_path / "theirs", ours):
        with pytest.raises(dylora.UserError, match="says its own alpha"):
            dylora.load_adapter(roberta(), source, alpha=6)
