"""The model card: what the hub reads, and numbers that are those of the record."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from table_records import write_run

from dylora.errors import UserError
from dylora.results.card import model_card
from dylora.results.deploy import Backbone, backbone_of
from dylora.results.runs import load_run

ROBERTA = Backbone("FacebookAI/roberta-base", on_hub=True)
HUB_TASK = {"task__hub": "nyu-mll/glue", "task__hub_config": "mrpc", "task__text": ["a", "b"]}


def card(folder: Path, rank: int = 4, backbone: Backbone = ROBERTA, **more: Any) -> ModelCard:
    return ModelCard(model_card(load_run(folder), rank, backbone, "me/words", **more))


def test_the_head_is_what_the_hub_reads(tmp_path: Path) -> None:
    scores = {4: {"accuracy": 0.87254901, "f1": 0.9}, 8: {"accuracy": 0.88, "f1": None}}
    folder = write_run(tmp_path, scores=scores, **HUB_TASK)
    data = card(folder, license="apache-2.0").data.to_dict()
    assert data["base_model"] == "FacebookAI/roberta-base"
    assert data["library_name"] == "peft" and data["pipeline_tag"] == "text-classification"
    assert data["license"] == "apache-2.0" and data["datasets"] == ["nyu-mll/glue"]
    assert set(data["tags"]) == {"lora", "dylora"} and data["metrics"] == ["accuracy", "f1"]
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"] == {"type": "nyu-mll/glue", "name": "mrpc", "config": "mrpc"}
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [
        ("accuracy", 0.87254901),
        ("f1", 0.9),
    ]


def test_a_merged_model_is_one_of_transformers(tmp_path: Path) -> None:
    made = card(write_run(tmp_path), merged=True)
    assert made.data.library_name == "transformers"
    assert 'AutoTokenizer.from_pretrained("me/words")' in made.text and "peft" not in made.text


def test_every_ranks_score_is_shown_and_this_one_marked(tmp_path: Path) -> None:
    text = card(write_run(tmp_path, scores={1: 0.8412, 4: 0.8779, 8: 0.88})).text
    rows = [line for line in text.partition("## How")[0].splitlines() if line.startswith("|")]
    assert rows[2:] == ["| 1 | 84.12 |", "| **4, this one** | 87.79 |", "| 8 | 88.00 |"]


def test_generation_scores_are_not_multiplied(tmp_path: Path) -> None:
    scores = {1: {"BLEU": 65.25, "METEOR": None}, 2: {"BLEU": 66.0, "METEOR": 45.5}}
    made = card(write_run(tmp_path, "e2e", max_rank=2, scores=scores), rank=1)
    assert "| **1, this one** | 65.25 | - |" in made.text
    assert made.data.metrics == ["bleu"], "what was not computed is no result"


def test_a_metric_of_a_part_of_the_data_keeps_its_id(tmp_path: Path) -> None:
    scores = {4: {"accuracy": 0.8, "accuracy_mismatched": 0.81}}
    data = card(write_run(tmp_path, "mnli", scores=scores)).data.to_dict()
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert [(m["type"], m["name"]) for m in metrics] == [
        ("accuracy", "accuracy"),
        ("accuracy", "accuracy_mismatched"),
    ]


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path, scores={1: 0.8}, train__max_steps=100)
    made = card(folder, rank=3)
    assert "Rank 3 itself was not scored." in made.text
    assert "Not all data or steps were used: train.max_steps=100." in made.text
    assert "stated none" in made.text and made.data.license is None
    assert made.data.to_dict().get("model-index") is None
    assert "| commit | unknown |" in made.text


@pytest.mark.parametrize(
    ("method", "rank", "scaling", "origin"),
    [
        ("dylora", 4, "4 = alpha / rank", "one DyLoRA training"),
        ("lora", 4, "2 = alpha / max_rank", "trained at rank 8 and truncated"),
        ("lora", 8, "2 = alpha / max_rank", "trained at this rank"),
    ],
)
def test_method_and_scaling_are_told(
    tmp_path: Path, method: str, rank: int, scaling: str, origin: str
) -> None:
    text = card(write_run(tmp_path, method=method, alpha=16.0), rank=rank).text
    assert f"| scaling here | {scaling} |" in text and origin in text
    assert ("2210.07558" in text) == (method == "dylora") and "2106.09685" in text


def test_a_revision_of_the_backbone_is_kept(tmp_path: Path) -> None:
    text = card(write_run(tmp_path, model__revision="abc")).text
    assert '"FacebookAI/roberta-base", revision="abc", num_labels=2' in text


def test_a_backbone_that_is_not_on_the_hub_is_no_metadata(tmp_path: Path) -> None:
    folder = write_run(tmp_path, model="own", model__name_or_path="own")
    made = card(folder, backbone=Backbone("/models/own", on_hub=False))
    assert made.data.base_model is None and "`own` is not on the hub" in made.text


@pytest.mark.parametrize(
    ("options", "loaded_from", "given", "expected"),
    [
        ({"name_or_path": "me/base"}, "/models/base", None, Backbone("me/base", True)),
        ({"name_or_path": "gpt2"}, "gpt2", None, Backbone("gpt2", True)),
        ({"name_or_path": "gpt2"}, "/models/gpt2", None, Backbone("/models/gpt2", False)),
        ({"name_or_path": "/a/b"}, "/a/b", None, Backbone("/a/b", False)),
        ({"name_or_path": "t", "toy": True}, "/c/t-1", None, Backbone("/c/t-1", False)),
        ({"name_or_path": "/a/b"}, "/a/b", "me/base", Backbone("me/base", True)),
    ],
)
def test_the_hub_id_is_named_rather_than_a_folder(
    tmp_path: Path, options: dict[str, Any], loaded_from: str, given: str | None, expected: Backbone
) -> None:
    more = {f"model__{name}": value for name, value in options.items()}
    assert backbone_of(load_run(write_run(tmp_path, **more)), loaded_from, given) == expected


def test_a_backbone_given_wrong_is_refused(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path))
    assert backbone_of(run, "", str(tmp_path)) == Backbone(str(tmp_path), False)
    with pytest.raises(UserError, match="base_model=/no/such: no such folder"):
        backbone_of(run, None, "/no/such")
