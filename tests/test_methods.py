"""The rivals' weights against their papers' formulas, in the library's own layers."""

import math
from itertools import product
from pathlib import Path

import peft
import pytest
import torch
from tiny import inputs, randomize, roberta

import dylora
from dylora.adapted import low_rank_parts
from dylora.methods import METHODS

S = {  # MatryoshkaLoRA's s_r; LoRA's scaling alpha/r_max at the highest rank in all of them
    "": lambda r: 6 / r,
    "_sqrt": lambda r: 6 / math.sqrt(6 * r),
    "_constant": lambda r: 6 / 6,
}
CHOICES = list(product(S, ("", "_powers"), ("", "_mean")))


@pytest.mark.parametrize(("scaling", "ranks", "reduce"), CHOICES)
def test_matryoshka_trains_the_sum_or_the_mean_of_its_ranks_own_adapters(
    scaling: str, ranks: str, reduce: str
) -> None:
    name = f"matryoshka{scaling}{ranks}{reduce}"
    model = dylora.adapt(roberta(), ["query"], max_rank=6, alpha=6, method=name)
    randomize(model)
    part = next(iter(low_rank_parts(model).values()))
    x = torch.randn(2, 3, part.lora_A.shape[1])
    trained = [1, 2, 4, 6] if ranks else [1, 2, 3, 4, 5, 6]
    expected = sum(S[scaling](r) * (x @ part.lora_A[:r].T @ part.lora_B[:, :r].T) for r in trained)
    expected = expected / len(trained) if reduce else expected
    torch.testing.assert_close(part.train()(x), expected)
    for rank in (1, 3, 6):
        with dylora.at_rank(model, rank):
            own = x @ part.lora_A[:rank].T @ part.lora_B[:, :rank].T
            torch.testing.assert_close(part.eval()(x), S[scaling](rank) * own)


def test_matryoshka_draws_no_rank() -> None:
    assert not METHODS["matryoshka"].draws_ranks and METHODS["matryoshka"].trains_every_rank


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("dylora", [16, 8, 4, 2]),
        ("dylora_sqrt", [5.656854, 4, 2.828427, 2]),
        ("dylora_constant", [2, 2, 2, 2]),
        ("lora", [2, 2, 2, 2]),
        ("rslora", [5.656854] * 4),
    ],
)
def test_scalings_at_ranks_1_2_4_8_with_alpha_16(name: str, weights: list[float]) -> None:
    for rank, weight in zip((1, 2, 4, 8), weights, strict=True):
        assert METHODS[name].weights(rank, 8, 16.0) == pytest.approx([weight] * rank)


def test_rslora_has_the_scaling_of_pefts() -> None:
    config = peft.LoraConfig(r=8, lora_alpha=16, use_rslora=True, target_modules=["query"])
    layer = peft.get_peft_model(roberta(), config).get_submodule(
        "base_model.model.roberta.encoder.layer.0.attention.self.query"
    )
    assert METHODS["rslora"].weights(8, 8, 16.0) == pytest.approx([layer.scaling["default"]] * 8)


@pytest.mark.parametrize("name", [m.name for m in METHODS.values() if m.has_ranks])
def test_every_method_merges_and_exports_what_it_computes(name: str, tmp_path: Path) -> None:
    model = dylora.adapt(roberta(), ["query", "value"], max_rank=4, alpha=6, method=name)
    randomize(model)
    with dylora.at_rank(model, 3):
        expected = model(inputs()).logits
    with dylora.merged(model, 3):
        torch.testing.assert_close(model(inputs()).logits, expected)
    dylora.export_peft(model, tmp_path, rank=3)
    exported = peft.PeftModel.from_pretrained(roberta(), tmp_path).eval()
    torch.testing.assert_close(exported(inputs()).logits, expected)
