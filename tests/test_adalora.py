"""AdaLoRA as a run trains it, against PEFT's own: penalty, allotted ranks, a resumed training."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.adalora import RankAllocator
from small_run import config, make_home
from tiny import inputs, roberta

from dylora.adapter import read_adapter
from dylora.errors import UserError
from dylora.suite import validation
from dylora.suite.config import MethodConfig, ModelConfig
from dylora.suite.records import run_folder
from dylora.training import experiment
from dylora.training.adalora import with_adalora, with_penalty
from dylora.training.step import Objective


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def adalora(home: Path, results: Path) -> Any:
    return config(home, results, "method=adalora", "train.select=last")


def test_the_penalty_is_the_one_that_peft_adds_to_a_models_own_loss() -> None:
    model_config = ModelConfig(target_modules=["query", "value"], head=["classifier"])
    method = MethodConfig(name="adalora", max_rank=3, alpha=6)
    model = with_adalora(roberta(), model_config, method, steps=20)
    batch = {"input_ids": inputs(), "labels": torch.tensor([0, 1, 0, 1])}

    def plain(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
        return torch.nn.functional.cross_entropy(logits, batch["labels"])

    objective = Objective([], lambda e: {}, plain, lambda m, r: {}, "accuracy")
    whole = model.base_model(**batch)  # PEFT's own model, which adds the penalty
    torch.testing.assert_close(with_penalty(objective).loss(model, batch), whole.loss)
    assert whole.loss > plain(model, batch) + 0.1


def test_training_leaves_a_layer_max_rank_components_on_average(home: Path, tmp_path: Path) -> None:
    record = experiment.run(adalora(home, tmp_path))
    assert list(record["scores"]) == ["0"], "it is no adapter of any rank"
    tensors, _ = read_adapter(next(tmp_path.glob("records/*/adapter.safetensors")))
    kept = [int((t != 0).sum()) for name, t in tensors.items() if ".lora_E." in name]
    assert sum(kept) == 3 * len(kept) and max(kept) <= 4


def test_an_interrupted_run_allots_what_an_uninterrupted_one_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (adalora(home, tmp_path / name) for name in ("whole", "parts"))
    real_cut, importances = RankAllocator.mask_to_budget, []

    def noted(allocator: RankAllocator, *arguments: Any) -> Any:
        importances.append({name: t.clone() for name, t in allocator.exp_avg_ipt.items()})
        return real_cut(allocator, *arguments)

    monkeypatch.setattr(RankAllocator, "mask_to_budget", noted)
    experiment.run(whole)
    real_loss, calls = experiment.classification.loss, []

    def stop_before_the_ranks_are_cut(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return real_loss(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment.classification, "loss", stop_before_the_ranks_are_cut)
        experiment.run(parts)
    experiment.run(parts)
    assert len(importances) == 2, "a cut in each of the two runs"
    adapters = [read_adapter(run_folder(made))[0] for made in (whole, parts)]
    for one, other in (importances, adapters):
        assert one and all(torch.equal(one[name], other[name]) for name in one)


def test_a_target_that_names_no_layer_is_refused_as_adapt_refuses_it() -> None:
    method = MethodConfig(name="adalora", max_rank=3, alpha=6)
    with pytest.raises(UserError, match="nothing"):
        with_adalora(roberta(), ModelConfig(target_modules=["nothing"]), method, steps=20)


def test_a_part_of_a_fused_layer_and_a_missing_peft_are_refused_before_a_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"whole layers only; set model\.target_modules"):
        config(home, tmp_path, "method=adalora", "model.target_modules=['c_attn:q,v']")
    monkeypatch.setattr(validation, "_installed", lambda package: package != "peft")
    with pytest.raises(UserError, match="pip install peft"):
        config(home, tmp_path, "method=adalora")
