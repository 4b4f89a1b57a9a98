"""The page on methods, run as it stands: its method from training to the export and the figures.

It has unequal weights in use, which no method of the project has, and other ones in training.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import peft
import pytest
import torch
from small_run import compose_config, make_home, options
from table_records import row, tables_of
from test_docs import ROOT, blocks
from tiny import inputs, save_roberta
from transformers import AutoModelForSequenceClassification

import dylora
from dylora.files import ADAPTER
from dylora.methods import METHODS
from dylora.rank import rank_state
from dylora.results.card import model_card
from dylora.results.curves import panels
from dylora.results.deploy import Backbone
from dylora.results.figures import scores_figure, spectra_figure
from dylora.results.runs import Run, load_records
from dylora.results.spectra import singular_values
from dylora.training import experiment

PAGE = ROOT / "docs" / "howto-method.md"
NAME, ALPHA, MAX_RANK = "harmonic", 16.0, 3


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page's code defines, run block after block; afterwards its method is gone."""
    home = tmp_path_factory.mktemp("page")
    save_roberta(home / "FacebookAI" / "roberta-base", ["a fine film", "a dull film"] * 3)
    namespace: dict[str, Any] = {}
    with patch.dict(METHODS), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(home)
        for block in blocks(PAGE, "python"):
            exec(compile(block, PAGE.name, "exec"), namespace)
        yield namespace


@pytest.fixture(scope="module")
def run(page: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of `method=harmonic`, which the page's YAML makes a choice."""
    home = make_home(tmp_path_factory.mktemp("home"))
    (yaml,) = blocks(PAGE, "yaml")
    (home / "conf" / "method").mkdir(parents=True)
    (home / "conf" / "method" / f"{NAME}.yaml").write_text(yaml)
    settings = [*options(home, home / "results"), "task.name=mrpc", "train.learning_rate=0.02"]
    search = f"hydra.searchpath=[file://{home / 'conf'}]"
    experiment.run(compose_config(search, f"method={NAME}", *settings), "python run.py")
    ((made,), problems) = load_records(home / "results" / "records")
    assert not problems
    return made


@pytest.fixture
def model(run: Run) -> torch.nn.Module:
    return dylora.load_adapter(backbone(run), run.folder / ADAPTER).eval()


def backbone(run: Run) -> torch.nn.Module:
    torch.manual_seed(0)
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return AutoModelForSequenceClassification.from_pretrained(
        run.option("model.name_or_path"), **dict.fromkeys(dropouts, 0.0)
    ).eval()


def logits(model: torch.nn.Module, rank: Any) -> torch.Tensor:
    with dylora.at_rank(model, rank), torch.no_grad():
        return model(inputs(MAX_RANK)).logits


def test_every_rank_is_scored_and_the_loop_trained_all_components_at_once(run: Run) -> None:
    assert sorted(run.scores) == [1, 2, 3]
    assert {step.rank for step in run.steps()} == {MAX_RANK}


def test_training_mode_has_the_rule_of_training_and_evaluation_that_of_use(
    page: dict[str, Any], model: torch.nn.Module
) -> None:
    like = torch.zeros(())
    state = rank_state(model)
    assert state.weights(3, like).tolist() == pytest.approx(page["in_use"](3, 3, ALPHA))
    trained = [ALPHA, ALPHA / 2 * 2 / 3, ALPHA / 3 / 3]
    assert state.training_weights(like).tolist() == pytest.approx(trained)
    in_use = logits(model, 1)
    assert torch.equal(logits(model.train(), 1), logits(model, 3)), "whatever rank is in force"
    assert not torch.allclose(logits(model, 1), in_use)


def test_one_rank_per_example_equals_each_rank_alone(model: torch.nn.Module) -> None:
    together = logits(model, torch.tensor([2, 3, 1]))
    for i, rank in enumerate((2, 3, 1)):
        torch.testing.assert_close(logits(model, rank)[i], together[i])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_merged_and_exported_to_peft_it_gives_the_same_logits(
    run: Run, model: torch.nn.Module, rank: int, tmp_path: Path
) -> None:
    expected = logits(model, rank)
    with dylora.merged(model, rank), torch.no_grad():
        torch.testing.assert_close(model(inputs(MAX_RANK)).logits, expected)
    folder = dylora.export_peft(run.folder / ADAPTER, tmp_path / "peft", rank)
    loaded = peft.PeftModel.from_pretrained(backbone(run), folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(inputs(MAX_RANK)).logits, expected)


def test_sorted_by_svd_and_as_a_start_it_keeps_its_function_at_max_rank(
    run: Run, model: torch.nn.Module, tmp_path: Path
) -> None:
    spectrum = dylora.sort_by_svd(run.folder / ADAPTER, tmp_path / "sorted.safetensors")
    tidy = dylora.load_adapter(backbone(run), tmp_path / "sorted.safetensors").eval()
    torch.testing.assert_close(logits(tidy, 3), logits(model, 3))
    largest = np.stack([values.numpy() for _, values in sorted(spectrum.values.items())])
    np.testing.assert_allclose(singular_values(run)[3], largest, rtol=1e-4, atol=1e-6)
    start = dylora.adapt(backbone(run), ["query", "value"], max_rank=3, alpha=5, method="lora")
    dylora.warm_start(start, run.folder / ADAPTER)
    start.classifier.load_state_dict(model.classifier.state_dict())  # a start keeps its own
    torch.testing.assert_close(logits(start.eval(), 3), logits(model, 3))


def test_the_card_states_its_scaling_and_what_to_cite(run: Run) -> None:
    text = model_card(run, 2, Backbone("me/base", on_hub=True), "me/words")
    assert "cut from one Harmonic LoRA training for all ranks from 1 to 3." in text
    assert "| scaling here | in B, from 8 to 16 by component = alpha / component |" in text
    assert text.count("@inproceedings") == 1 and "hu2022lora" in text


def test_figures_and_tables_have_its_curve(run: Run) -> None:
    (panel,) = panels([run])
    assert [series.name for series in panel.series] == ["Harmonic LoRA"]
    assert scores_figure(panel, []).axes and not isinstance(spectra_figure(panel, []), str)
    arm = {"name": "Harmonic", "match": {"method.name": NAME}, "ranks": [1, 2, 3]}
    columns = {"mrpc.accuracy": "MRPC"}
    table, *_ = tables_of(run.folder.parents[1], model="tiny", columns=columns, arms=[arm])
    for rank in (1, 2, 3):
        cell = row(table, "Harmonic", str(rank))["MRPC"]
        assert cell.value == pytest.approx(100 * run.scores[rank]["accuracy"])
