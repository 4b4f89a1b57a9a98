"""Models of PEFT made any-rank: our own layers' values and gradients, PEFT's names and files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from tiny import gpt2, inputs, llama, randomize, roberta
from torch import Tensor, nn
from trainers import same, trainer
from transformers import BitsAndBytesConfig, LlamaForCausalLM

import dylora
from dylora.adapted import adapter_layers
from dylora.adapter import adapter_config, adapter_state, load_adapter_state, read_adapter
from dylora.errors import UserError
from dylora.integrations import RankedTrainer
from dylora.rank import rank_state

MAX_RANK = 4
TOKENS = inputs(5, 7)
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "encoder with a head": (
        roberta,
        {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"},
    ),
    "Conv1D": (gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "all-linear": (llama, {"target_modules": "all-linear", "use_rslora": True}),
}


def in_peft(make: Callable[[], Any], **options: Any) -> PeftModel:
    config = LoraConfig(**{"r": MAX_RANK, "lora_alpha": 12, **options})
    return get_peft_model(make(), config).eval()


def nested(case: str, frozen: bool = False, method: str = "dylora", **options: Any) -> PeftModel:
    make, own = CASES[case]
    model = dylora.nest(in_peft(make, **own, **options), method=method, frozen=frozen)
    randomize(model)
    return model


def twin(model: nn.Module, make: Callable[[], Any], method: str = "dylora") -> nn.Module:
    """The same adapter in our own layers."""
    config = adapter_config(model)
    assert config is not None
    ours = dylora.adapt(
        make(),
        list(adapter_layers(model)),
        MAX_RANK,
        config.alpha,
        method,
        frozen=config.frozen,
        head=config.head,
    )
    load_adapter_state(ours, adapter_state(model), "the model of PEFT")
    return ours


def gradients(model: nn.Module, rank: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits at `rank`, and the gradient of each trained tensor by our names."""
    model.zero_grad()
    with dylora.at_rank(model, rank):
        logits = model(input_ids=TOKENS).logits
        logits.float().square().mean().backward()
    state = {t.data_ptr(): name for name, t in adapter_state(model).items()}
    found = {
        state[p.data_ptr()]: torch.zeros_like(p) if p.grad is None else p.grad
        for p in model.parameters()
        if p.data_ptr() in state
    }
    assert found.keys() == set(state.values())
    return logits, found


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_nested_model_has_the_values_and_gradients_of_our_own_layers(
    case: str, frozen: bool
) -> None:
    model = nested(case, frozen)
    ours = twin(model, CASES[case][0])
    last = None
    for rank in [*range(1, MAX_RANK + 1), torch.tensor([1, 3, 4, 2, 2])]:
        logits, learnt = gradients(model, rank)
        expected, ours_learnt = gradients(ours, rank)
        torch.testing.assert_close(logits, expected)
        assert learnt.keys() == ours_learnt.keys()
        for name, gradient in learnt.items():
            torch.testing.assert_close(gradient, ours_learnt[name], msg=name)
        assert last is None or not torch.allclose(logits, last)
        last = logits


@pytest.mark.parametrize("case", CASES)
def test_at_r_it_is_pefts_own_lora_and_without_a_rank_the_backbone(case: str) -> None:
    model = nested(case)
    make, options = CASES[case]
    plain = in_peft(make, **options)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(TOKENS).logits, plain(TOKENS).logits)
    with dylora.at_rank(model, None), plain.disable_adapter(), torch.no_grad():
        if options.get("task_type") is None:  # PEFT puts the untrained head back as well
            torch.testing.assert_close(model(TOKENS).logits, plain(TOKENS).logits)
        else:
            encoded = plain.get_base_model().roberta(TOKENS).last_hidden_state
            ours = model.get_base_model().roberta(TOKENS).last_hidden_state
            torch.testing.assert_close(ours, encoded)


def test_dropout_and_training_mode_are_those_of_pefts_layer() -> None:
    model = nested("all-linear", lora_dropout=0.5)
    assert torch.equal(model(TOKENS).logits, model(TOKENS).logits)
    model.train()
    assert not torch.equal(model(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_peft_merges_the_rank_in_force_and_unmerges_what_it_merged(case: str, safe: bool) -> None:
    model = nested(case)
    with dylora.at_rank(model, 2), torch.no_grad():
        expected, full = model(TOKENS).logits, adapter_layers(model)
        before = {name: layer.base.weight.clone() for name, layer in full.items()}
        model.merge_adapter(safe_merge=safe)
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="unmerge_adapter"), dylora.at_rank(model, 3):
        pass
    model.unmerge_adapter()
    for name, layer in adapter_layers(model).items():
        torch.testing.assert_close(layer.base.weight, before[name])
    with dylora.at_rank(model, 2), torch.no_grad():
        merged = model.merge_and_unload(safe_merge=safe)
        torch.testing.assert_close(merged(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_our_own_merging_and_exports_work_on_it(case: str, tmp_path: Path) -> None:
    model = nested(case)
    make = CASES[case][0]
    with torch.no_grad():
        for rank in (1, 3):
            with dylora.at_rank(model, rank):
                expected = model(TOKENS).logits
            with dylora.merged(model, rank):
                torch.testing.assert_close(model(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
            with dylora.at_rank(model, rank):
                assert torch.equal(model(TOKENS).logits, expected)  # restored bit for bit
            dylora.export_merged(model, tmp_path / "whole", rank)
            whole = type(make()).from_pretrained(tmp_path / "whole")
            torch.testing.assert_close(whole(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
            folder = dylora.export_peft(model, tmp_path / f"r{rank}", rank)
            plain = PeftModel.from_pretrained(make(), folder)
            torch.testing.assert_close(plain(TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
            assert plain.peft_config["default"].r == rank
        dylora.save_adapter(model, tmp_path / "adapter.safetensors")
        ours = dylora.load_adapter(make(), tmp_path / "adapter.safetensors", rank=3)
        torch.testing.assert_close(ours(TOKENS).logits, expected)


@pytest.mark.parametrize("case", CASES)
def test_save_pretrained_writes_a_plain_lora_that_reads_back_any_rank(
    case: str, tmp_path: Path
) -> None:
    model = nested(case)
    make = CASES[case][0]
    with dylora.at_rank(model, 2):
        model.save_pretrained(tmp_path)  # of all ranks, whichever is in force
    plain = PeftModel.from_pretrained(make(), tmp_path)
    assert type(plain.peft_config["default"]) is LoraConfig
    torch.testing.assert_close(plain(TOKENS).logits, model(TOKENS).logits)
    again = dylora.load_nested(make(), tmp_path)
    ours = dylora.load_adapter(make(), tmp_path)
    for rank in (1, 2, MAX_RANK):
        with dylora.at_rank(again, rank), dylora.at_rank(model, rank), dylora.at_rank(ours, rank):
            torch.testing.assert_close(again(TOKENS).logits, model(TOKENS).logits)
            torch.testing.assert_close(ours(TOKENS).logits, model(TOKENS).logits)


def test_a_folder_that_does_not_say_its_method_is_not_guessed(tmp_path: Path) -> None:
    in_peft(gpt2, fan_in_fan_out=True).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="give the method yourself"):
        dylora.load_nested(gpt2(), tmp_path)


def test_pefts_own_loading_into_a_nested_adapter_keeps_it_any_rank(tmp_path: Path) -> None:
    """What the Trainer does when it resumes and when it goes back to the best checkpoint."""
    model = nested("encoder with a head")
    model.save_pretrained(tmp_path)
    other = dylora.nest(in_peft(roberta, **CASES["encoder with a head"][1]))
    other.load_adapter(str(tmp_path), "default", is_trainable=True)
    with dylora.at_rank(model, 2), dylora.at_rank(other, 2):
        torch.testing.assert_close(other(TOKENS).logits, model(TOKENS).logits)


def test_hot_swapping_and_scaling_in_peft_reach_every_rank(tmp_path: Path) -> None:
    from peft.utils.hotswap import hotswap_adapter

    model = nested("Conv1D")
    other = nested("Conv1D", lora_alpha=24)
    randomize(other, seed=5)
    other.save_pretrained(tmp_path)
    hotswap_adapter(model, str(tmp_path), "default")
    for rank in (1, 3):
        with dylora.at_rank(model, rank), dylora.at_rank(other, rank):
            torch.testing.assert_close(model(TOKENS).logits, other(TOKENS).logits)


def test_several_adapters_have_ranks_of_their_own() -> None:
    model = nested("Conv1D")
    model.add_adapter("second", LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    dylora.nest(model, adapter="second")
    model.set_adapter("second")
    randomize(model, seed=3)
    dylora.set_rank(model, 1)
    model.set_adapter("default")
    assert rank_state(model).rank == MAX_RANK
    assert adapter_state(model)["transformer.h.0.attn.c_attn.lora_A"].shape[0] == MAX_RANK
    separate = {}
    for name in ("default", "second"):
        model.set_adapter(name)
        with dylora.at_rank(model, 2), torch.no_grad():
            separate[name] = model(TOKENS[:2]).logits
    names = ["default", "second"]  # a batch of PEFT that mixes adapters
    dylora.set_rank(model, 2)
    model.set_adapter("default")
    with dylora.at_rank(model, 2), torch.no_grad():
        mixed = model(input_ids=TOKENS[:2], adapter_names=names).logits
    for row, name in enumerate(names):
        torch.testing.assert_close(mixed[row], separate[name][row])
    model.base_model.set_adapter(["default", "second"])  # both at once
    with pytest.raises(UserError, match="several adapters of PEFT"), dylora.at_rank(model, 1):
        pass
    with pytest.raises(UserError, match="default and second are both active"):
        adapter_state(model)


def test_ranks_that_do_not_fit_a_model_of_peft_are_refused_and_nothing_changes() -> None:
    plain = in_peft(gpt2, target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(UserError, match=r"has no adapter.*dylora\.nest"), dylora.at_rank(plain, 1):
        pass
    model = dylora.nest(plain)
    for rank, message in (
        (MAX_RANK + 1, r"outside 1\.\.4"),
        ([1, 5, 2], "rank 5"),
        ({}, "name each"),
    ):
        with pytest.raises(UserError, match=message), dylora.at_rank(model, rank):
            pass
    with pytest.raises(UserError, match="2 ranks for a batch of"), dylora.at_rank(model, [1, 2]):
        model(TOKENS[:3])
    assert rank_state(model).rank == MAX_RANK


def test_one_model_has_layers_of_one_kind_and_active_adapters_of_one_method() -> None:
    model = in_peft(gpt2, target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(UserError, match=r"a model of PEFT: dylora\.nest"):
        dylora.adapt(model, "all-linear")
    own = dylora.adapt(gpt2(), ["c_proj"])
    both = get_peft_model(own, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))
    with pytest.raises(UserError, match=r"has an adapter of dylora\.adapt"):
        dylora.nest(both)
    assert not variants(both)
    second = LoraConfig(r=MAX_RANK, target_modules=["c_attn"], fan_in_fan_out=True)
    model.add_adapter("second", second)
    dylora.nest(dylora.nest(model), method="lora", adapter="second")
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(UserError, match="several adapters of PEFT"), dylora.at_rank(model, 1):
        pass


def variants(model: nn.Module) -> list[Any]:
    return [v for m in model.modules() for v in getattr(m, "lora_variant", {}).values()]


def test_sorting_and_holding_work_on_pefts_matrices(tmp_path: Path) -> None:
    from dylora.svd import recorded_moments, sort_components

    model = nested("encoder with a head", method="lora")
    with torch.no_grad():
        before = model(TOKENS).logits
    with recorded_moments(model) as moments:
        model(TOKENS).logits.square().mean().backward()
    assert moments.keys() == adapter_layers(model).keys()
    sort_components(model, moments)
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, before, rtol=1e-4, atol=1e-4)
    spectrum = dylora.sort_by_svd(model, tmp_path / "sorted.safetensors")
    assert all((v.diff() <= 0).all() for v in spectrum.values.values())

    model = nested("encoder with a head")
    first = {name: tensor.clone() for name, tensor in adapter_state(model).items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with dylora.at_rank(model, 2):
        model(TOKENS).logits.square().mean().backward()
    with dylora.hold_untrained_rows(model):
        optimizer.step()
    for name, tensor in adapter_state(model).items():
        if name.endswith("lora_A"):
            assert torch.equal(tensor[2:], first[name][2:])
            assert not torch.equal(tensor[:2], first[name][:2])


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no LoRA": (gpt2, "peft.get_peft_model"),
    "own layers": (lambda: dylora.adapt(gpt2(), ["c_attn"]), "peft.get_peft_model"),
    "DoRA": (lambda: in_peft(roberta, target_modules=["query"], use_dora=True), "use_dora"),
    "bias of B": (lambda: in_peft(roberta, target_modules=["query"], lora_bias=True), "lora_bias"),
    "ranks by layer": (
        lambda: in_peft(roberta, target_modules=["query", "value"], rank_pattern={"query": 2}),
        "differ in r or scaling",
    ),
    "an embedding": (
        lambda: in_peft(roberta, target_modules=["word_embeddings", "query"]),
        "word_embeddings is PEFT's Embedding",
    ),
    "another kind": (
        lambda: get_peft_model(
            roberta(), IA3Config(target_modules=["query"], feedforward_modules=[])
        ),
        "IA3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_nested_is_refused_and_left_as_it_was(case: str) -> None:
    make, message = BAD[case]
    model = make()
    with torch.no_grad():
        before = model(TOKENS).logits
    with pytest.raises(UserError, match=message):
        dylora.nest(model)
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, before)
    assert not [v for v in variants(model) if hasattr(v, "rank_state")]


def test_nesting_twice_an_unknown_adapter_or_method_and_a_merged_one_are_refused() -> None:
    model = nested("Conv1D")
    with pytest.raises(UserError, match="nested already"):
        dylora.nest(model)
    with pytest.raises(UserError, match="there is no adapter 'second'; there is default"):
        dylora.nest(model, adapter="second")
    with pytest.raises(UserError, match="no method of low-rank adapters"):
        dylora.nest(in_peft(gpt2, fan_in_fan_out=True), method="full")
    merged = in_peft(gpt2, fan_in_fan_out=True)
    merged.merge_adapter()
    with pytest.raises(UserError, match="is merged"):
        dylora.nest(merged)


def test_dylora_json_says_the_method_and_nothing_of_peft_changes(tmp_path: Path) -> None:
    nested("Conv1D").save_pretrained(tmp_path / "ours")
    in_peft(gpt2, **CASES["Conv1D"][1]).save_pretrained(tmp_path / "plain")
    ours, plain = (
        json.loads((tmp_path / name / "adapter_config.json").read_text())
        for name in ("ours", "plain")
    )
    assert ours == plain
    facts = json.loads((tmp_path / "ours" / "dylora.json").read_text())
    assert facts == {"method": "dylora", "frozen": False}


@pytest.mark.slow
def test_the_trainer_gives_a_nested_model_the_adapter_that_it_gives_ours(tmp_path: Path) -> None:
    """Drawn ranks, held rows, evaluation of every rank and checkpoints included."""
    model = dylora.nest(in_peft(roberta, **CASES["encoder with a head"][1]))
    ours = twin(model, roberta)
    start = {name: tensor.clone() for name, tensor in adapter_state(model).items()}
    for each, name in ((model, "nested"), (ours, "ours")):
        run = trainer(
            tmp_path / name,
            each,
            kind=RankedTrainer,
            strict_freeze=True,
            max_steps=4,
            save_strategy="steps",
            save_steps=4,
        )
        run.train()
        scores = run.evaluate()
        assert {f"eval_accuracy_r{rank}" for rank in range(1, MAX_RANK + 1)} < scores.keys()
    trained, expected = adapter_state(model), adapter_state(ours)
    assert trained.keys() == expected.keys() == start.keys()
    for name, tensor in trained.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
        assert not torch.equal(tensor, start[name])
    checkpoint = tmp_path / "nested" / "checkpoint-4"
    again = dylora.load_nested(roberta(), checkpoint)  # PEFT's own files
    assert same(adapter_state(again), trained)
    assert same(read_adapter(checkpoint)[0], trained)  # and ours


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_model_is_nested_as_pefts_qlora_is(bits: int, tmp_path: Path) -> None:
    llama(width=64).save_pretrained(tmp_path)  # bitsandbytes on a CPU wants multiples of 64
    quantized = BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4"
    )

    def load() -> Any:
        return LlamaForCausalLM.from_pretrained(
            tmp_path, quantization_config=quantized, dtype=torch.float32
        ).eval()

    targets = {"target_modules": ["q_proj", "v_proj"]}
    model = dylora.nest(in_peft(load, **targets))
    randomize(model)
    kinds = {type(layer.low_rank.layer).__name__ for layer in variants(model)}
    assert kinds == {"Linear4bit" if bits == 4 else "Linear8bitLt"}
    ours = twin(model, load)
    plain = in_peft(load, **targets)
    matrices = {name: t for name, t in model.state_dict().items() if ".lora_" in name}
    plain.load_state_dict(matrices, strict=False)
    # The backbone rounds activations too, so that a last bit can become a step.
    close = {"rtol": 1e-3, "atol": 2e-3}
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, plain(TOKENS).logits, **close)
        for rank in (1, 3):
            with dylora.at_rank(model, rank), dylora.at_rank(ours, rank):
                expected = model(TOKENS).logits
                torch.testing.assert_close(expected, ours(TOKENS).logits, **close)
                full = plain(TOKENS).logits
                assert (expected - full).abs().max() > 5 * close["atol"]
    with dylora.at_rank(model, 2), pytest.warns(UserWarning, match="rounding errors"):
        expected = model(TOKENS).logits
        model.merge_adapter()
        coarse = {4: 0.5, 8: 0.1}[bits]  # the sum is quantized again
        assert (model(TOKENS).logits - expected).abs().max() < coarse * expected.abs().max()
        model.unmerge_adapter()
