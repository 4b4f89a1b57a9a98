"""Which rank is in force, and how it is drawn."""

import numpy as np
import pytest
import torch
from tiny import inputs, randomize, roberta

import dylora
from dylora.rank import rank_state


@pytest.fixture
def model() -> torch.nn.Module:
    made = dylora.adapt(roberta(), ["query", "value"], max_rank=4)
    randomize(made)
    return made


def test_at_rank_changes_the_outputs_and_restores_the_former_rank(model: torch.nn.Module) -> None:
    x = inputs()
    before = model(x).logits
    with dylora.at_rank(model, 2):
        inside = model(x).logits
        with dylora.at_rank(model, 1):
            assert rank_state(model).rank == 1
        assert rank_state(model).rank == 2
    assert not torch.allclose(inside, before)
    assert torch.equal(model(x).logits, before)


def test_at_rank_restores_after_an_exception(model: torch.nn.Module) -> None:
    with pytest.raises(RuntimeError), dylora.at_rank(model, 1):
        raise RuntimeError
    assert rank_state(model).rank == 4


def test_at_rank_puts_back_ranks_of_examples_that_live_on_another_device() -> None:
    model = dylora.adapt(roberta().to("meta"), ["query"], max_rank=4)
    dylora.set_rank(model, torch.tensor([2, 1]))
    before = rank_state(model).rank
    with dylora.at_rank(model, torch.tensor([3, 4])):
        model(inputs(2).to("meta"))
    assert rank_state(model).rank is before


def test_at_rank_none_is_the_bare_backbone(model: torch.nn.Module) -> None:
    with dylora.at_rank(model, None):
        bare = model(inputs()).logits
    twin = roberta()
    assert torch.equal(bare, twin(inputs()).logits)


@pytest.mark.parametrize("rank", [0, 5, -1])
def test_a_rank_outside_the_range_is_refused_and_changes_nothing(
    model: torch.nn.Module, rank: int
) -> None:
    with pytest.raises(dylora.UserError, match=r"outside 1\.\.4"):
        dylora.set_rank(model, rank)
    with pytest.raises(dylora.UserError, match=r"outside 1\.\.4"):
        dylora.set_rank(model, torch.tensor([1, rank]))
    assert rank_state(model).rank == 4


def test_one_rank_per_example_equals_each_rank_alone_in_a_whole_model(
    model: torch.nn.Module,
) -> None:
    x, ranks = inputs(4), [2, 4, 1, 3]
    with dylora.at_rank(model, torch.tensor(ranks)):
        together = model(x).logits
    for row, rank in enumerate(ranks):
        with dylora.at_rank(model, rank):
            torch.testing.assert_close(model(x).logits[row], together[row])


def test_a_model_without_adapter_says_what_to_call() -> None:
    with pytest.raises(dylora.UserError, match=r"dylora\.adapt"), dylora.at_rank(roberta(), 1):
        pass


def draws(sampler: dylora.RankSampler, steps: int) -> np.ndarray:
    return np.array([sampler(step) for step in range(steps)])


@pytest.mark.parametrize(
    "options", [{}, {"distribution": "geometric"}, {"min_rank": 3}], ids=["uniform", "geom", "min"]
)
def test_ranks_follow_their_distribution(options: dict) -> None:
    sampler = dylora.RankSampler(max_rank=8, seed=5, **options)
    low = options.get("min_rank", 1)
    ranks = np.arange(low, 9)
    mass = 0.85 ** (ranks - 1.0) if options.get("distribution") else np.ones(len(ranks))
    seen = draws(sampler, 6000)
    assert seen.min() == low and seen.max() == 8
    frequencies = np.array([(seen == rank).mean() for rank in ranks])
    np.testing.assert_allclose(frequencies, mass / mass.sum(), atol=0.02)


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    first, second = (dylora.RankSampler(8, seed=1) for _ in range(2))
    assert [first(step) for step in (9, 3, 9)] == [second(step) for step in (9, 3, 9)]
    assert (draws(first, 50) != draws(dylora.RankSampler(8, seed=2), 50)).any()
    assert torch.equal(first.per_sample(7, 5), second.per_sample(7, 5))


def test_ranks_per_sample_cover_the_range_evenly_and_in_random_order() -> None:
    sampler = dylora.RankSampler(8, seed=0)
    first = sampler.per_sample(0, 16)
    assert torch.bincount(first, minlength=9)[1:].tolist() == [2] * 8
    assert not torch.equal(first, sampler.per_sample(1, 16))
    assert first.tolist() != sorted(first.tolist())


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"max_rank": 6}, {1: 16, 2: 2, 3: 2, 4: 2, 5: 2, 6: 8}),
        ({"max_rank": 5, "min_rank": 3}, {3: 16, 4: 8, 5: 8}),
        ({"max_rank": 2}, {1: 16, 2: 16}),
        ({"max_rank": 1}, {1: 32}),
    ],
)
def test_a_sandwich_is_half_lowest_a_quarter_highest_and_the_rest_between(
    options: dict, counts: dict[int, int]
) -> None:
    drawn = dylora.RankSampler(distribution="sandwich", **options).per_sample(3, 32).tolist()
    assert {rank: drawn.count(rank) for rank in sorted(set(drawn))} == counts


@pytest.mark.parametrize(
    "options",
    [
        {"max_rank": 4, "min_rank": 5},
        {"max_rank": 4, "min_rank": 0},
        {"max_rank": 4, "distribution": "poisson"},
        {"max_rank": 4, "distribution": "geometric", "geometric_p": 1.0},
    ],
)
def test_impossible_distributions_are_refused(options: dict) -> None:
    with pytest.raises(dylora.UserError):
        dylora.RankSampler(**options)
