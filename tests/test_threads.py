"""Threads have their own ranks, merging is exclusive, copies are whole, arguments are checked."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import gpt2, inputs, randomize, roberta
from torch import nn

import dylora
from dylora.rank import rank_state


@pytest.fixture
def model() -> nn.Module:
    made = dylora.adapt(roberta(), ["query", "value"], max_rank=4, alpha=8)
    randomize(made)
    return made


def in_threads(*work: Callable[[], Any]) -> list[Any]:
    """What the functions return or raise, all run at the same time."""
    results: list[Any] = [None] * len(work)

    def run(number: int) -> None:
        try:
            results[number] = work[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@torch.no_grad()
def logits_at(model: nn.Module, rank: int) -> torch.Tensor:
    with dylora.at_rank(model, rank):
        return model(inputs()).logits


@pytest.mark.parametrize("how", ["at_rank", "set_rank"])
def test_threads_at_different_ranks_do_not_disturb_each_other(model: nn.Module, how: str) -> None:
    expected = {rank: logits_at(model, rank) for rank in (1, 2, 4)}
    ready = threading.Barrier(3)

    def differing(rank: int) -> int:
        ready.wait()
        if how == "at_rank":
            return sum(not torch.equal(logits_at(model, rank), expected[rank]) for _ in range(100))
        dylora.set_rank(model, rank)
        ready.wait()
        with torch.no_grad():
            return sum(not torch.equal(model(inputs()).logits, expected[rank]) for _ in range(100))

    work = [lambda rank=rank: differing(rank) for rank in expected]  # type: ignore[misc]
    assert in_threads(*work) == [0, 0, 0]
    assert rank_state(model).rank == 4, "this thread's own"


def test_a_thread_without_a_rank_of_its_own_uses_the_last_one(model: nn.Module) -> None:
    """So do torch's: those of the backward pass that compute checkpoints again, DataParallel's."""

    def rank() -> Any:
        return rank_state(model).rank

    with dylora.at_rank(model, 2):
        with dylora.at_rank(model, 3):
            assert in_threads(rank) == [3]
        assert in_threads(rank) == [2]
    assert in_threads(rank) == [4]
    dylora.set_rank(model, 1)
    assert in_threads(rank) == [1]


def test_a_rank_set_inside_a_block_ends_with_it(model: nn.Module) -> None:
    def work() -> tuple[Any, Any]:
        with dylora.at_rank(model, 2):
            dylora.set_rank(model, 3)
            inside = rank_state(model).rank
        return inside, rank_state(model).rank

    assert [work(), *in_threads(work)] == [(3, 4), (3, 4)]


def test_merging_is_refused_where_it_would_disturb(model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = logits_at(model, 2)
    with dylora.merged(model, 2):
        for refused in (
            dylora.merged(model, 3),
            dylora.at_rank(model, 3),
            dylora.at_rank(model, None),
        ):
            with pytest.raises(dylora.UserError, match="merged"), refused:
                pass
        with pytest.raises(dylora.UserError, match="leave the block of merged"):
            dylora.set_rank(model, 3)
        (error,) = in_threads(lambda: logits_at(model, 3))
        assert isinstance(error, dylora.UserError)
        torch.testing.assert_close(model(inputs()).logits, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert torch.equal(logits_at(model, 3), logits_at(model, 3))


def test_merging_waits_for_no_thread_and_disturbs_none(model: nn.Module) -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> torch.Tensor:
        with dylora.at_rank(model, 3):
            inside.set()
            leave.wait(60)
            return model(inputs()).logits

    def merge() -> None:
        inside.wait(60)
        try:
            with dylora.merged(model, 2):
                pass
        finally:
            leave.set()

    logits, error = in_threads(stay, merge)
    assert isinstance(error, dylora.UserError) and "another thread" in str(error)
    assert torch.equal(logits, logits_at(model, 3))


def test_many_merging_threads_leave_the_backbone_bit_for_bit(model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def merge() -> None:
        for _ in range(50):
            try:
                with dylora.merged(model, 2), torch.no_grad():
                    model(inputs(2, 4))
            except dylora.UserError:
                continue

    assert in_threads(*[merge] * 4) == [None] * 4
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copied_model_has_one_rank_of_its_own(model: nn.Module, copied: Any) -> None:
    twin = copied(model)
    for rank in (1, 3):
        with dylora.at_rank(twin, rank):
            assert torch.equal(twin(inputs()).logits, logits_at(model, rank))
            assert rank_state(model).rank == 4


def test_a_layer_copied_into_its_own_model_is_refused(model: Any) -> None:
    layers = model.roberta.encoder.layer
    layers.append(copy.deepcopy(layers[0]))
    with pytest.raises(dylora.UserError, match=r"copied.*dylora\.adapt afterwards"):
        dylora.set_rank(model, 2)


@pytest.mark.parametrize("rank", [np.int64(3), np.int32(3), torch.tensor(3)])
def test_whole_numbers_of_any_type_are_ranks(model: nn.Module, rank: Any, tmp_path: Any) -> None:
    expected = logits_at(model, 3)
    dylora.set_rank(model, rank)
    assert torch.equal(model(inputs()).logits, expected)
    with dylora.merged(model, int(rank)):
        pass
    if not isinstance(rank, torch.Tensor):
        dylora.export_peft(model, tmp_path, rank)
        path = dylora.save_adapter(
            dylora.adapt(gpt2(), ["c_fc"], max_rank=rank), tmp_path / "a.safetensors"
        )
        dylora.load_adapter(gpt2(), path, rank=rank)


@pytest.mark.parametrize(
    "rank",
    [2.5, 2.0, True, "2", [1, 2.5], torch.tensor([1.0]), torch.tensor([[1]]), torch.tensor([])],
)
def test_ranks_that_are_no_whole_numbers_are_refused(model: nn.Module, rank: Any) -> None:
    with pytest.raises(dylora.UserError, match="rank"):
        dylora.set_rank(model, rank)
    with pytest.raises(dylora.UserError, match="rank"), dylora.merged(model, rank):
        pass
    assert rank_state(model).rank == 4


ARGUMENTS: dict[str, dict[str, Any]] = {
    "method is 'LoRA'|method='LoRA'": {"method": "LoRA"},
    "alpha is 0": {"alpha": 0},
    "alpha is -1": {"alpha": -1},
    "alpha is inf": {"alpha": float("inf")},
    "alpha is nan": {"alpha": float("nan")},
    "max_rank is 2.5": {"max_rank": 2.5},
    "max_rank is 0": {"max_rank": 0},
    "target_modules is empty": {"target_modules": []},
    r"target_modules is the text 'query'.*\[\"query\"\]": {"target_modules": "query"},
    "every item must be a name": {"target_modules": [""]},
    "head is the text 'classifier'": {"head": "classifier"},
    "dropout is 1": {"dropout": 1},
}


@pytest.mark.parametrize("message", ARGUMENTS)
def test_arguments_that_cannot_be_meant_are_refused_and_leave_the_model_alone(message: str) -> None:
    model = roberta()
    with pytest.raises(dylora.UserError, match=message):
        dylora.adapt(model, **{"target_modules": ["query"], **ARGUMENTS[message]})
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_module_under_two_names_is_refused() -> None:
    model: Any = roberta()
    layers = model.roberta.encoder.layer
    layers[1].attention.self.query = layers[0].attention.self.query
    with pytest.raises(dylora.UserError, match=r"layer\.0.*query and .*layer\.1.*query are one"):
        dylora.adapt(model, ["query"])
