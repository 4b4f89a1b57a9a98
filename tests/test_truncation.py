"""A LoRA's other truncations come from one run, and are what their names say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import config, make_home, record_of

import dylora
from dylora.suite.config import Config
from dylora.suite.records import run_folder
from dylora.tasks import load
from dylora.training import experiment
from dylora.training.classification import encode, predict
from dylora.training.models import load_backbone

RANKS = [1, 2, 3]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, Any]]:
    home = make_home(tmp_path_factory.mktemp("home"))
    every = "evaluate.truncations=[rescaled,svd,svd_input,svd_kfac]"
    training = ["method=lora", "train.learning_rate=0.02", "train.epochs=25"]
    chosen = config(home, home / "results", *training, every)
    experiment.run(chosen)
    return chosen, record_of(home / "results")


def predictions(chosen: Config, adapter: Path) -> dict[int | None, list[str]]:
    """The class names that an adapter file gives at every rank, without the suite's run."""
    splits = load(chosen.task, chosen.paths)
    model, tokenizer = load_backbone(chosen.model, chosen.task, chosen.paths)
    dylora.load_adapter(model, adapter)
    examples = encode(splits["validation"], tokenizer, chosen.task.max_length)
    found = predict(model, examples, tokenizer, RANKS, 64, torch.device("cpu"))
    return {rank: [chosen.task.labels[int(v)] for v in values] for rank, values in found.items()}


def kept(chosen: Config, truncation: str, rank: int) -> list[str]:
    path = run_folder(chosen) / "outputs" / truncation / f"validation.rank{rank}.txt"
    return path.read_text().split()


def test_every_truncation_has_every_rank_and_agrees_at_the_highest(
    done: tuple[Config, dict[str, Any]],
) -> None:
    record = done[1]
    assert list(record["truncations"]) == ["rescaled", "svd", "svd_input", "svd_kfac"]
    for scores in record["truncations"].values():
        assert list(scores) == ["1", "2", "3"]
        assert scores["3"] == record["scores"]["3"]
    assert len({json.dumps(scores) for scores in record["truncations"].values()}) > 1


def test_the_plain_sort_is_that_of_the_library(
    done: tuple[Config, dict[str, Any]], tmp_path: Path
) -> None:
    chosen, _ = done
    dylora.sort_by_svd(run_folder(chosen) / "adapter.safetensors", tmp_path / "s.safetensors")
    expected = predictions(chosen, tmp_path / "s.safetensors")
    assert [kept(chosen, "svd", rank) for rank in (1, 2)] == [expected[1], expected[2]]


def test_the_rescaled_one_is_the_same_tensors_with_dyloras_scaling(
    done: tuple[Config, dict[str, Any]], tmp_path: Path
) -> None:
    chosen, _ = done
    model, _ = load_backbone(chosen.model, chosen.task, chosen.paths)
    dylora.load_adapter(model, run_folder(chosen) / "adapter.safetensors")
    model.adapter_config = type(model.adapter_config)(
        **{**vars(model.adapter_config), "method": "dylora"}
    )
    file = dylora.save_adapter(model, tmp_path / "rescaled.safetensors")
    expected = predictions(chosen, file)
    assert [kept(chosen, "rescaled", rank) for rank in (1, 2)] == [expected[1], expected[2]]


def test_a_sorted_dylora_is_cut_at_one_scaling_from_what_it_is_at_max_rank(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    training = ["method=dylora", "train.learning_rate=0.02", "train.epochs=25"]
    chosen = config(home, home / "results", *training, "evaluate.truncations=[svd]")
    experiment.run(chosen)
    record = record_of(home / "results")
    assert record["truncations"]["svd"]["3"] == record["scores"]["3"]
    dylora.sort_by_svd(run_folder(chosen) / "adapter.safetensors", tmp_path / "s.safetensors")
    expected = predictions(chosen, tmp_path / "s.safetensors")
    assert [kept(chosen, "svd", rank) for rank in (1, 2)] == [expected[1], expected[2]]


def test_only_a_lora_is_rescaled_and_only_low_ranks_are_sorted(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with pytest.raises(dylora.UserError, match="method=full has no LoRA to sort"):
        config(home, tmp_path, "method=full", "evaluate.truncations=[svd]")
    with pytest.raises(dylora.UserError, match="rescaled is for method=lora"):
        config(home, tmp_path, "method=dylora", "evaluate.truncations=[rescaled]")
