"""A whole run of a generation task: from E2E's file format to the scores of decoded text."""

import math
import signal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from decoders import byte_tokenizer, decoder
from fake_java import use_fake_java
from small_generation import FOODS, make_home, options
from small_run import compose_config, epochs_of, record_of

import dylora
from dylora.adapted import adapter_layers
from dylora.metrics import nlg
from dylora.suite.signals import Interrupted
from dylora.training import causal, decode, experiment, generation


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "dylora"])
def test_a_run_scores_the_decoded_text_of_every_rank(
    home: Path, tmp_path: Path, family: str, method: str
) -> None:
    made = compose_config(*options(home, tmp_path, family), f"method={method}")
    experiment.run(made)
    record = record_of(tmp_path)
    assert record["status"] == "done" and list(record["scores"]) == ["1", "2"]
    outputs = next(tmp_path.glob("records/*/outputs"))
    files = sorted(p.name for p in outputs.iterdir() if p.is_file())
    kept = ("test.rank1", "test.rank2")
    assert files == [f"{name}.{ending}" for name in kept for ending in ("BLEU.csv", "txt")]
    references = [[f"Ruru has {f} food.", f"{f} food is at Ruru."] for f in FOODS]
    for rank in ("1", "2"):
        texts = (outputs / f"test.rank{rank}.txt").read_text().split("\n")[:-1]
        again = nlg.score("e2e", references, texts, None, ["BLEU", "NIST"])
        assert record["scores"][rank] == {n: pytest.approx(s.value) for n, s in again.items()}
        assert record["metrics"] == {n: s.signature for n, s in again.items()}
        features = np.loadtxt(outputs / f"test.rank{rank}.BLEU.csv", delimiter=",")
        assert np.array_equal(features, nlg.counts("e2e", references, texts)["BLEU"])
    assert all(row.metric == "perplexity" and row.value > 1 for row in epochs_of(tmp_path))


def test_a_run_that_is_terminated_while_it_decodes_goes_on_with_the_texts_it_has(
    home: Path, tmp_path: Path
) -> None:
    given = ["task.decode.token_budget=1"]  # a batch for each input
    expected = experiment.run(compose_config(*options(home, tmp_path / "whole"), *given))
    made = compose_config(*options(home, tmp_path / "parts"), *given)
    real_search, real_loss, decoded, losses = decode.beam_search, causal.loss, [], []

    def search(*arguments: Any) -> list[str]:
        decoded.append(1)
        if len(decoded) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real_search(*arguments)

    def loss(*arguments: Any) -> torch.Tensor:
        losses.append(1)
        return real_loss(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "beam_search", search)
        patch.setattr(causal, "loss", loss)
        with pytest.raises(Interrupted):
            experiment.run(made)
        assert record_of(tmp_path / "parts")["status"] == "interrupted"
        trained = len(losses)
        record = experiment.run(made)
    assert len(losses) == trained, "it was trained twice"
    assert len(decoded) == 2 * len(FOODS) + 1, "only the input that was stopped is decoded again"
    assert record["scores"] == expected["scores"]


def test_the_epoch_with_the_lowest_perplexity_is_kept(home: Path, tmp_path: Path) -> None:
    experiment.run(compose_config(*options(home, tmp_path), "train.epochs=4"))
    record = record_of(tmp_path)
    selected = list({row.epoch: row.selected for row in epochs_of(tmp_path)}.values())
    assert record["best_epoch"] == 1 + selected.index(min(selected))


def test_full_fine_tuning_has_one_score(home: Path, tmp_path: Path) -> None:
    experiment.run(compose_config(*options(home, tmp_path), "method=full"))
    assert list(record_of(tmp_path)["scores"]) == ["0"]


def test_perplexity_is_that_of_the_targets_alone_at_each_rank() -> None:
    tokenizer = byte_tokenizer()
    model = dylora.adapt(decoder().float(), ["c_attn:q,v"], max_rank=2)
    for layer in adapter_layers(model).values():
        for part in layer.parts.values():
            torch.nn.init.normal_(part.lora_B)
    rows = datasets.Dataset.from_dict({"source": ["a b", "c"], "target": ["xyz", "uv"]})
    examples = causal.encode(rows, tokenizer, 96)
    found = generation.perplexity(model, examples, tokenizer, [1, 2], 2, torch.device("cpu"))
    for rank in (1, 2):
        total = count = 0.0
        with dylora.at_rank(model, rank), torch.no_grad():
            for example in examples:
                tokens = torch.tensor(example["input_ids"])
                logits = model.eval()(tokens[None]).logits[0]
                start = example["prompt_length"]
                total += F.cross_entropy(logits[start - 1 : -1], tokens[start:], reduction="sum")
                count += len(tokens) - start
        assert found[rank]["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert found[1] != found[2]


def test_webnlgs_parts_are_scored_apart_as_well(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = experiment.load

    def with_parts(*arguments: Any) -> Any:
        splits = real(*arguments)
        splits["test"] = splits["test"].add_column("part", ["seen", "seen", "unseen"])
        return splits

    monkeypatch.setattr(experiment, "load", with_parts)
    started = use_fake_java(monkeypatch, tmp_path)
    given = ("method=lora", "task.metrics=[METEOR]", "evaluate.truncations=[svd]")
    experiment.run(compose_config(*options(home, tmp_path), *given))
    record = record_of(tmp_path)
    names = ["METEOR", "METEOR_seen", "METEOR_unseen"]
    every_rank = [*record["scores"].values(), *record["truncations"]["svd"].values()]
    assert every_rank == [dict.fromkeys(names, 50.0)] * 4
    assert len(started.read_text().splitlines()) == 1, "one METEOR for all ranks and parts"


def test_without_java_a_metric_is_a_dash_and_the_rest_is_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    experiment.run(compose_config(*options(home, tmp_path), "task.metrics=[BLEU,METEOR]"))
    record = record_of(tmp_path)
    assert record["scores"]["1"]["METEOR"] is None and record["scores"]["1"]["BLEU"] is not None
    assert "Java" in record["metrics"]["METEOR"]
    printed = capsys.readouterr().out
    assert " -" in printed and "METEOR not computed" in printed
