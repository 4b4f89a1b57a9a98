"""A rank for each request of a batch, and for each layer: the same as separate runs."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import VOCABULARY, gpt2, inputs, llama, randomize
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

import dylora
from dylora.adapted import adapter_layers
from dylora.errors import UserError
from dylora.rank import rank_state

RANKS = [1, 8, 4]
TOKENS = inputs(3, 6)


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config).eval()


def nested_llama() -> PeftModel:
    return dylora.nest(get_peft_model(llama(), LoraConfig(r=8, target_modules="all-linear")))


MODELS: dict[str, Callable[[], Any]] = {
    "decoder": lambda: dylora.adapt(gpt2(), ["c_attn:q,v", "c_fc"]),
    "model of PEFT": nested_llama,
    "encoder and decoder": lambda: dylora.adapt(t5(), ["q", "v"]),
}


def made(name: str) -> nn.Module:
    model = MODELS[name]()
    randomize(model)
    return model.eval()


def written(model: Any, rank: Any, rows: slice, **options: Any) -> list[list[int]]:
    """What greedy or beam search adds, each row up to its padding."""
    with dylora.at_rank(model, rank):
        made = model.generate(
            input_ids=TOKENS[rows],
            attention_mask=torch.ones_like(TOKENS[rows]),
            max_new_tokens=8,
            do_sample=False,
            pad_token_id=0,
            **options,
        )
    return [row.tolist() for row in made]


@pytest.mark.parametrize(
    "search", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}]
)
@pytest.mark.parametrize("name", MODELS)
def test_each_request_is_answered_at_its_own_rank(name: str, search: dict[str, int]) -> None:
    model = made(name)
    together = written(model, RANKS, slice(None), **search)
    count = search.get("num_return_sequences", 1)
    for row, rank in enumerate(RANKS):
        alone = written(model, rank, slice(row, row + 1), **search)
        for answer, expected in zip(together[row * count : (row + 1) * count], alone, strict=True):
            assert answer[: len(expected)] == expected
            assert not any(answer[len(expected) :])  # padding alone
    assert together != written(model, 8, slice(None), **search)


def test_a_list_is_a_rank_for_each_row_of_a_forward_pass() -> None:
    model = made("decoder")
    with dylora.at_rank(model, RANKS), torch.no_grad():
        mixed = model(TOKENS).logits
    for row, rank in enumerate(RANKS):
        with dylora.at_rank(model, rank), torch.no_grad():
            torch.testing.assert_close(mixed[row], model(TOKENS).logits[row])


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([1, 2], "2 ranks for a batch of 3"),
        ([1, 2, 3, 4], "4 ranks for a batch of 3"),
        ([1], "1 ranks for a batch of 3"),  # not one for three beams
        ([1, 9, 4], r"rank 9 is outside 1\.\.8"),
        ([1, 2.5, 4], "no whole number"),
        ([], "a list or a LongTensor"),
    ],
)
def test_a_wrong_list_is_refused_and_the_rank_stays(ranks: Any, message: str) -> None:
    model = made("decoder")
    with pytest.raises(UserError, match=message), dylora.at_rank(model, ranks):
        model(TOKENS)
    assert rank_state(model).rank == 8


@pytest.mark.parametrize("ranks", [[4], [1, 8], [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("name", MODELS)
def test_generate_takes_a_rank_for_each_example_and_no_other_number(
    name: str, ranks: list[int]
) -> None:
    model = made(name)
    rows = inputs(2 if len(ranks) != 2 else 4, 6)  # each list would divide or fill the beams
    with (
        pytest.raises(UserError, match=f"{len(ranks)} ranks for a batch of {len(rows)} examples"),
        dylora.at_rank(model, ranks),
    ):
        model.generate(input_ids=rows, num_beams=3, max_new_tokens=2, pad_token_id=0)
    assert "generate" not in vars(model)


def test_threads_generate_at_their_own_ranks_with_one_model() -> None:
    model = made("decoder")
    search = {"num_beams": 2}
    expected = [written(model, ranks, slice(None), **search) for ranks in (RANKS, RANKS[::-1])]
    with ThreadPoolExecutor(2) as threads:
        tasks = [(RANKS, 0), (RANKS[::-1], 1)] * 3
        found = threads.map(lambda task: written(model, task[0], slice(None), **search), tasks)
    assert list(found) == [expected[which] for _, which in tasks]
    assert "generate" not in vars(model)


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_can_have_a_rank_of_its_own(name: str, tmp_path: Path) -> None:
    model = made(name)
    decoding = {"decoder_input_ids": TOKENS} if name == "encoder and decoder" else {}
    layers = list(adapter_layers(model))
    ranks = {layer: 1 + number % 8 for number, layer in enumerate(layers)}
    with torch.no_grad():
        with dylora.at_rank(model, ranks):
            mixed = model(input_ids=TOKENS, **decoding).logits
        with dylora.merged(model, ranks):
            merged = model(input_ids=TOKENS, **decoding).logits
        torch.testing.assert_close(merged, mixed, rtol=1e-4, atol=1e-4)
        for rank in (1, 8):
            with dylora.at_rank(model, rank):
                uniform = model(input_ids=TOKENS, **decoding).logits
                assert not torch.allclose(uniform, mixed, atol=1e-3)
            with dylora.at_rank(model, dict.fromkeys(layers, rank)):
                assert torch.equal(model(input_ids=TOKENS, **decoding).logits, uniform)
        folder = dylora.export_peft(model, tmp_path / "mixed", rank=ranks)
        bare = {"decoder": gpt2, "model of PEFT": llama, "encoder and decoder": t5}[name]()
        plain = PeftModel.from_pretrained(bare, folder)
        exported = plain(input_ids=TOKENS, **decoding).logits
        torch.testing.assert_close(exported, mixed, rtol=1e-4, atol=1e-4)


def test_all_layers_must_be_named_and_a_copy_knows_them() -> None:
    model = made("decoder")
    layers = list(adapter_layers(model))
    for wrong in (layers[1:], [*layers, "lm_head"]):
        with (
            pytest.raises(UserError, match="must name each adapted layer once"),
            dylora.at_rank(model, dict.fromkeys(wrong, 2)),
        ):
            pass
    with pytest.raises(UserError, match="rank 9"), dylora.at_rank(model, dict.fromkeys(layers, 9)):
        pass
    assert rank_state(model).rank == 8
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with dylora.at_rank(again, dict.fromkeys(layers, 2)), dylora.at_rank(model, 2):
            assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)
