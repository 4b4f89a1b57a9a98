"""An adapted model at the prompt: what it prints, its sizes, its scores at every rank."""

import pytest
import tiny
import torch
from torch import Tensor, nn

import dylora
from dylora import UserError
from dylora.adapted import low_rank_parts


@pytest.fixture
def model() -> nn.Module:
    made = dylora.adapt(tiny.roberta(), target_modules=["query", "value"], max_rank=4, alpha=16)
    for part in low_rank_parts(made).values():
        nn.init.normal_(part.lora_B)
    return made


def batches() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": torch.randint(5, 50, (3, 7), generator=generator),
            "labels": torch.tensor([0, 1, 1]),
        }
        for _ in range(2)
    ]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(-1) == labels).float().mean().item()


def test_a_printed_model_shows_method_rank_and_alpha(model: nn.Module) -> None:
    dylora.set_rank(model, 3)
    assert "method=dylora, rank=3, max_rank=4, alpha=16" in str(model)
    with dylora.at_rank(model, torch.tensor([1, 2])):
        assert "rank=[1, 2]" in str(model)


def test_a_sampler_shows_what_it_draws_from() -> None:
    text = repr(dylora.RankSampler(max_rank=8, min_rank=2, distribution="geometric", seed=3))
    assert text == "RankSampler(ranks 2..8, geometric, seed=3)"


def test_the_summary_counts_what_is_trained_and_stored(model: nn.Module) -> None:
    found = dylora.summary(model)
    assert (found.method, found.max_rank, found.alpha) == ("DyLoRA", 4, 16.0)
    assert len(found.layers) == 4 and found.layers[0].endswith("query")
    stored = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    assert found.sizes == {1: stored // 4, 2: stored // 2, 3: 3 * stored // 4, 4: stored}
    assert found.trained == sum(t.numel() for t in dylora.adapter_state(model).values())
    assert found.total == sum(p.numel() for p in model.parameters())
    for words in ("DyLoRA, max_rank 4, alpha 16: 4 layers", f"{found.trained:,} of", f"{stored:,}"):
        assert words in str(found)


def test_every_rank_is_scored_as_by_hand_and_the_model_is_left_as_it_was(model: nn.Module) -> None:
    dylora.set_rank(model, 2)
    model.train()
    found = dylora.evaluate_ranks(model, iter(batches()), lambda logits, _: logits.sum().item())
    assert model.training and "rank=2" in str(model)
    model.eval()
    assert list(found) == [1, 2, 3, 4]
    for rank, score in found.items():
        with dylora.at_rank(model, rank), torch.no_grad():
            expected = sum(model(**batch).logits.sum().item() for batch in batches())
        assert score == pytest.approx(expected, rel=1e-5)
    assert dylora.evaluate_ranks(model, batches(), accuracy, ranks=[3]).keys() == {3}


def test_scores_are_printed_with_bars_from_the_worst_to_the_best() -> None:
    lines = str(dylora.RankScores({1: 0.5, 2: 0.75, 4: 1.0})).splitlines()
    assert [line.count("#") for line in lines] == [0, 0, 20, 40]
    assert str(dylora.RankScores({1: 0.5})).splitlines()[1].split() == ["1", "0.5000"]


def test_what_cannot_be_scored_is_told(model: nn.Module) -> None:
    with pytest.raises(UserError, match="no adapter: call"):
        dylora.summary(tiny.roberta())
    with pytest.raises(UserError, match="inputs and `labels`"):
        dylora.evaluate_ranks(model, [], accuracy)
    with pytest.raises(UserError, match="rank 9 is outside"):
        dylora.evaluate_ranks(model, batches(), accuracy, ranks=[9])
