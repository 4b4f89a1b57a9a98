"""A rank for each layer under a budget: `dylora.allocate`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import gpt2, inputs, llama, randomize, roberta
from torch import nn

import dylora
from dylora.adapted import low_rank_parts
from dylora.errors import UserError
from dylora.rank import rank_state

TARGETS = ["query", "value", "intermediate.dense"]


def adapted(**options: Any) -> nn.Module:
    model = dylora.adapt(roberta(), TARGETS, **options)
    randomize(model)
    return model


def cost(model: nn.Module, ranks: dict[str, int]) -> int:
    return sum(
        ranks[part.name] * (part.lora_A.shape[1] + part.lora_B.shape[0])
        for part in low_rank_parts(model).values()
    )


def delta(model: nn.Module, layer: str, rank: int) -> torch.Tensor:
    with dylora.at_rank(model, rank), torch.no_grad():
        return dylora.adapter_layers(model)[layer].delta().double()


def distance(model: nn.Module, ranks: dict[str, int]) -> float:
    """Of all deltas from those of max_rank, squared: the energy that is lost."""
    return sum(
        (delta(model, layer, 8) - delta(model, layer, rank)).square().sum().item()
        for layer, rank in ranks.items()
    )


@pytest.mark.parametrize("method", ["lora", "dylora", "dylora_sqrt"])
def test_energy_beats_uniform_ranks_of_the_same_size(method: str) -> None:
    model = adapted(method=method)
    with torch.no_grad():  # layers that need ranks, and layers that hardly do
        for number, part in enumerate(low_rank_parts(model).values()):
            part.lora_B[:, 1 + number :] *= 0.1
    sizes = dylora.summary(model).sizes
    for rank in range(2, 8):
        ranks = dylora.allocate(model, sizes[rank])
        assert cost(model, ranks) <= sizes[rank]
        uniform = distance(model, dict.fromkeys(ranks, rank))
        assert distance(model, ranks) <= uniform * (1 + 1e-6)
        assert method != "lora" or distance(model, ranks) < 0.95 * uniform
    assert len({*dylora.allocate(model, sizes[3]).values()}) > 1


def test_a_sorted_adapter_spends_on_the_largest_singular_values(tmp_path: Path) -> None:
    model = adapted(method="lora")
    spectrum = dylora.sort_by_svd(model, tmp_path / "sorted.safetensors")
    model = dylora.load_adapter(roberta(), tmp_path / "sorted.safetensors")
    per_parameter = {  # squares of the values that each rank adds
        (part.name, rank): spectrum.values[part.name][rank - 1].item() ** 2
        / (part.lora_A.shape[1] + part.lora_B.shape[0])
        for part in low_rank_parts(model).values()
        for rank in range(2, 9)
    }
    ranks = dylora.allocate(model, dylora.summary(model).sizes[4])
    bought = [gain for (name, rank), gain in per_parameter.items() if rank <= ranks[name]]
    left = [gain for (name, rank), gain in per_parameter.items() if rank == ranks[name] + 1]
    cheapest = min(bought)
    assert sum(gain > cheapest for gain in left) <= 1  # but for what no longer fitted


def test_validation_buys_what_raises_the_score_and_nothing_else() -> None:
    model = adapted()
    layers = list(dylora.adapter_layers(model))
    wanted, calls = {layers[1]: 5, layers[4]: 3}, []

    def score() -> float:
        """Grows with two layers' ranks up to a point; the other layers do not matter."""
        ranks = rank_state(model).rank
        assert isinstance(ranks, dict)
        calls.append(ranks)
        return sum(min(ranks[layer], enough) for layer, enough in wanted.items())

    budget = dylora.summary(model).sizes[8]
    ranks = dylora.allocate(model, budget, by="validation", score=score)
    assert ranks == {layer: wanted.get(layer, 1) for layer in layers}
    assert len(calls) == len(layers) * 7 + 1
    assert rank_state(model).rank == 8


def test_a_rank_that_gains_nothing_does_not_hide_a_higher_one() -> None:
    model = adapted()
    layers = list(dylora.adapter_layers(model))

    def score() -> float:
        ranks = rank_state(model).rank
        assert isinstance(ranks, dict)
        return [0, -1, -1, 2, 2, 2, 2, 2][ranks[layers[0]] - 1]

    sizes = dylora.summary(model).sizes
    assert dylora.allocate(model, sizes[8], by="validation", score=score)[layers[0]] == 4


def test_the_budget_goes_to_all_of_it_where_it_suffices_and_is_never_exceeded() -> None:
    model = adapted(method="lora")
    sizes = dylora.summary(model).sizes
    assert set(dylora.allocate(model, sizes[8]).values()) == {8}
    assert set(dylora.allocate(model, sizes[1]).values()) == {1}
    assert cost(model, dylora.allocate(model, sizes[1] + 100)) <= sizes[1] + 100


@pytest.mark.parametrize("name", ["fused", "model of PEFT"])
def test_the_ranks_are_those_of_at_rank_and_of_the_exported_pattern(
    name: str, tmp_path: Path
) -> None:
    if name == "fused":
        model: Any = dylora.adapt(gpt2(), ["c_attn:q,v", "c_fc"])
    else:
        config = LoraConfig(r=8, target_modules=["q_proj", "up_proj"])
        model = dylora.nest(get_peft_model(llama(), config)).eval()
    randomize(model)
    with torch.no_grad():
        next(iter(low_rank_parts(model).values())).lora_B[:, 1:] *= 0.01
    ranks = dylora.allocate(model, dylora.summary(model).sizes[3])
    assert ranks.keys() == dylora.adapter_layers(model).keys()
    with dylora.at_rank(model, ranks), torch.no_grad():
        expected = model(inputs()).logits
    folder = dylora.export_peft(model, tmp_path / "mixed", rank=ranks)
    assert json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
    plain = PeftModel.from_pretrained(gpt2() if name == "fused" else llama(), folder)
    torch.testing.assert_close(plain(inputs()).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 100}, "budget is 100 parameters; one rank of each of the 6 layers takes"),
        ({"budget": 9999, "by": "luck"}, 'it is "energy" or "validation"'),
        ({"budget": 9999, "by": "validation"}, "needs score="),
        ({"budget": 9999, "score": lambda: 1.0}, "takes no score="),
    ],
)
def test_what_cannot_be_allocated_is_refused(options: dict[str, Any], message: str) -> None:
    model = adapted()
    with pytest.raises(UserError, match=message):
        dylora.allocate(model, **options)
    assert rank_state(model).rank == 8
    with pytest.raises(UserError, match="has no adapter"):
        dylora.allocate(roberta(), 9999)
